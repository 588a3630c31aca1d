"""Writes the shards of one split, and can go on after a stop at the last point that was made durable."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from blt.checkpoint import sync
from blt.data.shard_table import RECORD, ends_name, hex_of, record, shard_name, table_name
from blt.errors import DataError

if TYPE_CHECKING:
    from hashlib import _Hash


@dataclass(kw_only=True)
class SplitState:
    """What of a split is on the disk."""

    num_shards: int = 0
    """Finished shards, which the table lists."""
    num_bytes: int = 0
    """Bytes of the finished shards."""
    num_documents: int = 0
    """Documents of the finished shards."""
    open_bytes: int = 0
    """Bytes of the shard that is being written."""
    open_documents: int = 0
    """Documents of the shard that is being written."""
    open_sha256: str = ""
    """Of what is written of that shard."""
    open_ends_sha256: str = ""
    """Of its ends."""


class ShardWriter:
    """Appends documents to the last shard of a split, and starts another when it is full."""

    def __init__(self, folder: Path, split: str, *, shard_bytes: int, state: SplitState | None = None) -> None:
        """Start a split, or go on from a state that `sync` gave.

        Args:
            folder: the folder that holds the splits.
            split: name of the split.
            shard_bytes: a shard is closed before it would grow larger; a longer document gets its own.
            state: what is there already; files are cut back to it.

        Raises:
            DataError: the files hold something else than the state says.
        """
        self.state = state or SplitState()
        self._folder = folder
        self._split = split
        self._shard_bytes = shard_bytes
        self._ends: list[int] = []
        (folder / split).mkdir(parents=True, exist_ok=True)
        self._check_finished()
        self._open_files()

    @property
    def num_documents(self) -> int:
        """Documents so far, in all shards."""
        return self.state.num_documents + self.state.open_documents

    def is_full_for(self, document: bytes) -> bool:
        """Whether the open shard must be closed before this document."""
        return self.state.open_documents > 0 and self.state.open_bytes + len(document) > self._shard_bytes

    def append(self, document: bytes) -> None:
        """Write a document to the open shard."""
        self._text.write(document)
        self._text_hash.update(document)
        self.state.open_bytes += len(document)
        self.state.open_documents += 1
        self._ends.append(self.state.open_bytes)
        if len(self._ends) >= 1 << 16:
            self._write_ends()

    def sync(self) -> SplitState:
        """Wait until everything so far is on the disk, and say what that is."""
        self._write_ends()
        for file in (self._text, self._ends_file):
            file.flush()
            os.fsync(file.fileno())
        self.state.open_sha256 = self._text_hash.hexdigest()
        self.state.open_ends_sha256 = self._ends_hash.hexdigest()
        return self.state

    def close_shard(self) -> None:
        """Finish the open shard and start the next; nothing happens if it is empty."""
        if not self.state.open_documents:
            return
        self.sync()
        self.close()
        state = self.state
        made = record(
            num_bytes=state.open_bytes,
            num_documents=state.open_documents,
            sha256=self._text_hash.hexdigest(),
            ends_sha256=self._ends_hash.hexdigest(),
        )
        with self._table.open("ab") as table:
            table.write(made)
        sync(self._table)
        self.state = SplitState(
            num_shards=state.num_shards + 1,
            num_bytes=state.num_bytes + state.open_bytes,
            num_documents=state.num_documents + state.open_documents,
        )
        self._open_files()

    def finish(self) -> dict[str, Any]:
        """Close the last shard, and return the split's entry in `index.json` but for the checksum of its documents."""
        self.close_shard()
        self.close()
        for path in self._paths():
            path.unlink()
        sync(self._folder / self._split)
        counts = {name: getattr(self.state, name) for name in ("num_shards", "num_documents", "num_bytes")}
        return counts | {"table_sha256": _hash_of(self._table).hexdigest()}

    def close(self) -> None:
        """Close the files as they are."""
        try:
            self._text.close()
        finally:  # on a full disk the first may fail
            self._ends_file.close()

    def _paths(self) -> tuple[Path, Path]:
        number = self.state.num_shards
        return self._folder / shard_name(self._split, number), self._folder / ends_name(self._split, number)

    @property
    def _table(self) -> Path:
        return self._folder / table_name(self._split)

    def _check_finished(self) -> None:
        """Cut the table back to the finished shards, and compare them with it.

        Raises:
            DataError: a file is missing or has changed.
        """
        _open_cut(self._table, RECORD.itemsize * self.state.num_shards).close()
        for number, row in enumerate(np.fromfile(self._table, RECORD)):
            for name, digest in ((shard_name, row["sha256"]), (ends_name, row["ends_sha256"])):
                path = self._folder / name(self._split, number)
                _check(path, _hash_of(path), hex_of(digest))

    def _open_files(self) -> None:
        text, ends = self._paths()
        self._text = _open_cut(text, self.state.open_bytes)
        try:
            self._ends_file = _open_cut(ends, 8 * self.state.open_documents)
            self._text_hash, self._ends_hash = _hash_of(text), _hash_of(ends)
            if self.state.open_documents:
                _check(text, self._text_hash, self.state.open_sha256)
                _check(ends, self._ends_hash, self.state.open_ends_sha256)
        except DataError:
            self._text.close()
            raise

    def _write_ends(self) -> None:
        ends = np.array(self._ends, dtype="<i8").tobytes()
        self._ends_file.write(ends)
        self._ends_hash.update(ends)
        self._ends.clear()


def _hash_of(path: Path) -> "_Hash":
    """Return the hash of a file's content, to be gone on with.

    Raises:
        DataError: the file is not there.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, hashlib.sha256)
    except FileNotFoundError:
        raise DataError(f"{path.name} is missing") from None


def _check(path: Path, found: "_Hash", wanted: str) -> None:
    if found.hexdigest() != wanted:
        raise DataError(f"{path.name} has changed")


def _open_cut(path: Path, length: int) -> BinaryIO:
    """Open a file to append to its first `length` bytes.

    Raises:
        DataError: it is shorter than that.
    """
    file = path.open("ab", buffering=1 << 20)
    found = file.tell()
    if found < length:
        file.close()
        raise DataError(f"{path.name} has {found} bytes, {length} were written")
    file.truncate(length)
    return file
