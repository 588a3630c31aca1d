"""Files of a store, read by blocks that are kept for a while.

Training reads windows in random order: of terabytes, hardly a block is asked for twice, so that neither whole shards in
a local cache nor large blocks would be of use. A block is small enough to cost hardly more than the round trip of its
request, and large enough that a search among the ends of a shard's documents takes one or two. Where a file is read on
from where the last request for it ended, as when entropies are computed, each request is twice as long as the one
before, and the round trips are few there too.
"""

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from blt.data.store import Store

BLOCK_BYTES = 1 << 17
"""Bytes of a block: in the time of a round trip of 30 ms, a connection of 100 MB/s delivers 3 MB."""
MAX_REQUEST = 1 << 22
"""Bytes of the longest request, once a file is read from end to end."""
CACHE_BYTES = 1 << 26
"""Bytes of blocks that are kept, for each split; what was asked for longest ago goes first."""
_MAX_FOLLOWED = 256
"""Files of which it is known where the last request ended."""


class Blocks:
    """Reads parts of files by whole blocks, and keeps the blocks that were asked for last; any thread may ask."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._size = 0
        self._ended: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, name: str, start: int, stop: int, *, size: int) -> bytes:
        """Return the bytes of a file from `start` to before `stop`.

        Args:
            name: of the file.
            start: of the part.
            stop: of the part.
            size: of the file.

        Raises:
            DataError: it cannot be read, or is shorter.
        """
        if start >= stop:
            return b""
        numbers = range(start // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES + 1)
        found = {number: block for number in numbers if (block := self._block(name, number)) is not None}
        missing = [number for number in numbers if number not in found]
        if missing:
            found |= self._fetch(name, missing[0], missing[-1] + 1, size=size)
        begun = numbers[0] * BLOCK_BYTES
        return b"".join(found[number] for number in numbers)[start - begun : stop - begun]

    def _block(self, name: str, number: int) -> bytes | None:
        with self._lock:
            if (block := self._kept.get((name, number))) is not None:
                self._kept.move_to_end((name, number))
            return block

    def _fetch(self, name: str, first: int, stop: int, *, size: int) -> dict[int, bytes]:
        """Return some blocks in one request, and more behind them where the file is read on."""
        num_blocks = -(-size // BLOCK_BYTES)
        with self._lock:
            ended, length = self._ended.get(name, (-1, 0))
        if ended == first:
            stop = max(stop, min(first + min(2 * length, MAX_REQUEST // BLOCK_BYTES), num_blocks))
        begun = first * BLOCK_BYTES
        content = self._store.read_part(name, begun, min(stop * BLOCK_BYTES, size))
        blocks = {
            number: content[number * BLOCK_BYTES - begun : (number + 1) * BLOCK_BYTES - begun]
            for number in range(first, stop)
        }
        with self._lock:
            self._ended[name] = stop, stop - first
            self._ended.move_to_end(name)
            while len(self._ended) > _MAX_FOLLOWED:
                self._ended.popitem(last=False)
            for number, block in blocks.items():
                if (name, number) not in self._kept:
                    self._kept[name, number] = block
                    self._size += len(block)
            while self._size > CACHE_BYTES:
                _, dropped = self._kept.popitem(last=False)
                self._size -= len(dropped)
        return blocks


class StoreText:
    """The bytes of a file in a store."""

    def __init__(self, blocks: Blocks, name: str, *, size: int) -> None:
        """Name a file; nothing of it is looked at.

        Args:
            blocks: reads it.
            name: of the file.
            size: in bytes, as the table of shards says.
        """
        self._blocks, self._name, self._size = blocks, name, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> NDArray[np.uint8]:
        """Return a part; it cannot be written.

        Raises:
            DataError: the file is missing, shorter, or cannot be read.
        """
        start, stop, _ = part.indices(self._size)
        return np.frombuffer(self._blocks.read(self._name, start, stop, size=self._size), np.uint8)
