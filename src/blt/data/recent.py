"""A bounded memory of what was opened last."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Keeps the values that were asked for last, as many as fit; any thread may ask."""

    def __init__(self, make: Callable[[int], T], *, room: int, size_of: Callable[[T], int] = lambda _: 1) -> None:
        """Start with nothing.

        Args:
            make: makes the value of a number.
            room: sum of the sizes of the values that are kept; the newest is kept whatever its size.
            size_of: returns the size of a value.
        """
        self._make, self._room, self._size_of = make, room, size_of
        self._kept: OrderedDict[int, T] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def __call__(self, number: int) -> T:
        """Return the value of a number, made anew unless it is kept."""
        with self._lock:
            if (value := self._kept.get(number)) is not None:
                self._kept.move_to_end(number)
                return value
        value = self._make(number)  # outside the lock: it may take long, and other threads want other values
        with self._lock:
            if number in self._kept:
                return self._kept[number]
            self._kept[number] = value
            self._size += self._size_of(value)
            while self._size > self._room and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._size -= self._size_of(dropped)
        return value
