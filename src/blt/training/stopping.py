"""Stopping a run from outside, so that it can be gone on with."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stopped(Exception):  # noqa: N818 (an event, not an error)
    """The run was asked to stop, and has kept all that it has done."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Note SIGINT and SIGTERM instead of dying; a second one acts as usual.

    A SIGINT that whoever started this process wants ignored, as nohup or a shell's `&` does, stays ignored.
    """
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (a signal handler's signature)
        asked.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if number == signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN:
            continue
        try:
            before[number] = signal.signal(number, note)
        except ValueError:  # not the main thread: whoever runs us handles signals
            continue
    try:
        yield lambda: bool(asked)
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
