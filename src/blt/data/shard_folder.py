"""The shards of one split in a folder on this machine.

Of a split that is compared with its checksums at opening, shards are mapped into memory when they are first read, and
stay mapped. A larger one is read part by part: a batch of it meets shards that were never met before, and mapping them
would take most of its time.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blt.data.checked_files import MappedFile, check_files
from blt.data.file_text import FileText
from blt.data.index import entry_of, read_index, read_table
from blt.data.mapping import map_file
from blt.data.recent import Recent
from blt.data.shard import Shard, StoredEnds
from blt.data.shard_table import ShardTable, ends_name, hex_of, shard_name
from blt.errors import DataError

MAX_MAPPED_SHARDS = 1024
"""Shards that stay mapped; a process may have some 65,000 mappings, and each shard takes two."""
CHECKED_AT_OPENING = 2**36
"""Bytes up to which a split is compared with its checksums when it is opened; more takes too long before a first step,
and `blt prepare --check` does it."""


class ShardFolder:
    """Opens shards by number."""

    readers = 1
    """How many slices are read at the same time: what is on this machine comes without waiting."""

    def __init__(self, folder: Path, split: str, entry: dict[str, Any]) -> None:
        """Read the table of a split; of the shards themselves, nothing.

        Args:
            folder: the prepared folder.
            split: its name.
            entry: what `index.json` says of it, or will say.

        Raises:
            DataError: the table is missing or damaged.
        """
        self.folder = folder
        self.place = str(folder)
        self.entry = entry
        identity = _identity(folder)
        self.table: ShardTable = read_table(folder, split, entry)
        self.is_checked = entry["num_bytes"] <= CHECKED_AT_OPENING
        self._place = _Place(folder=folder, split=split, table=self.table, identity=identity)
        self._opened = Recent(self._place.map, room=MAX_MAPPED_SHARDS)

    @classmethod
    def find(cls, folder: Path, split: str) -> "ShardFolder":
        """Read the index of a finished folder, and the table of a split.

        Raises:
            DataError: the folder is missing, foreign, or damaged, or has no document in that split.
        """
        return cls(folder, split, entry_of(read_index(folder), split, where=str(folder)))

    def shard(self, number: int) -> Shard:
        """Return a shard.

        Raises:
            DataError: a file is missing or has another size, or the folder was prepared anew since it was opened.
        """
        return self._opened(number) if self.is_checked else self._place.read(number)

    def whole_shard(self, number: int) -> Shard:
        """Return a shard that is to be read from end to end: mapped apart, so that the system reads ahead.

        Raises:
            DataError: as `shard` does.
        """
        return self._place.map(number, is_random=False)

    def check(self, *, on_file: Callable[[], None]) -> None:
        """Compare the files of a split that is not too large with their checksums, unless they were before.

        Args:
            on_file: told after each file that was compared.

        Raises:
            DataError: a file is not what the index says.
        """
        if self.is_checked:
            check_files(self.folder, self._files(), on_file=on_file)

    def verify(self) -> None:
        """Read every file once and compare it with its checksum.

        Raises:
            DataError: a file has changed since it was prepared.
        """
        for file in self._files():
            found = hashlib.sha256(file.content.data).hexdigest()
            if found != file.sha256:
                path = self.folder / file.name
                raise DataError(f"{path}: has changed (sha256 {found[:12]}, was {file.sha256[:12]}); prepare it anew")

    def _files(self) -> Iterator[MappedFile]:
        for number in range(len(self.table)):
            if self.is_checked:
                self._opened(number)  # what is compared here is what is read later, also if another takes its place
            yield from self._place.files(number)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Place:
    """Where the shards of a split lie.

    It holds nothing that was opened: a mapping ends when nobody reads it any more, so that nothing that holds one may
    be part of a cycle of references.
    """

    folder: Path
    split: str
    table: ShardTable
    identity: tuple[int, ...] | None
    """Of the index that the table was read with."""

    def read(self, number: int) -> Shard:
        """Return a shard whose parts are read when they are asked for.

        Raises:
            DataError: the folder was prepared anew.
        """
        names, sizes = self._files(number)
        text, ends = (FileText(f"{self.folder}/{name}", size=size) for name, size in zip(names, sizes, strict=True))
        return Shard(text=text, ends=StoredEnds(ends), where=f"{self.folder}/{names[1]}")

    def map(self, number: int, *, is_random: bool = True) -> Shard:
        """Map the files of a shard, to be read here and there, or from end to end.

        Raises:
            DataError: a file is missing or has another size, or the folder was prepared anew.
        """
        names, sizes = self._files(number)
        text, _ = _map(self.folder, names[0], sizes[0], is_random=is_random)
        # A search in the ends meets some of their pages, which are few: they may well be read ahead.
        ends, _ = _map(self.folder, names[1], sizes[1], is_random=False)
        return Shard(text=text, ends=ends.view("<i8"), where=f"{self.folder}/{names[1]}")

    def files(self, number: int) -> Iterator[MappedFile]:
        """Map the files of a shard, to be compared with their checksums.

        Raises:
            DataError: as `map` does.
        """
        row = self.table[number]
        digests = (row["sha256"], row["ends_sha256"])
        for name, size, digest in zip(*self._files(number), digests, strict=True):
            content, stat = _map(self.folder, name, size, is_random=False)
            yield MappedFile(name=name, content=content, stat=stat, sha256=hex_of(digest))

    def _files(self, number: int) -> tuple[tuple[str, str], tuple[int, int]]:
        """Return the names of a shard's text and ends, and their sizes.

        Raises:
            DataError: the folder was prepared anew.
        """
        if _identity(self.folder) != self.identity:
            raise DataError(f"{self.folder}: was prepared anew while it was read; start again")
        row = self.table[number]
        names = shard_name(self.split, number), ends_name(self.split, number)
        return names, (int(row["num_bytes"]), 8 * int(row["num_documents"]))


def _identity(folder: Path) -> tuple[int, ...] | None:
    """Return what tells the index of a folder from one that has taken its place."""
    try:
        stat = os.stat(f"{folder}/index.json")  # noqa: PTH116 (looked at before each shard, in the time of a step)
    except OSError:  # missing: whoever reads it says so
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _map(folder: Path, name: str, size: int, *, is_random: bool) -> tuple[NDArray[np.uint8], os.stat_result]:
    """Map a file that must hold exactly `size` bytes.

    Raises:
        DataError: it is missing or has another size.
    """
    path = f"{folder}/{name}"
    try:
        content, stat = map_file(path, is_random=is_random)
    except FileNotFoundError:
        raise DataError(f"{path}: missing, though index.json lists it; prepare again with --overwrite") from None
    if len(content) != size:
        raise DataError(f"{path}: has {len(content)} bytes, index.json says {size}; prepare again with --overwrite")
    return content, stat
