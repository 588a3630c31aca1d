"""Entropies computed once and kept in a file: one float32 per id of the stream.

The name of the file has a fingerprint in it, of the entropy model's weights. While it is being written, it has another
name, and NaN where nothing was written yet, so that it can be gone on with and is never taken for whole.
"""

import re
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from blt.checkpoint import named_failures, sync
from blt.errors import DataError

_CHUNK = 1 << 22


class EntropyStore:
    """The entropies of one split, in nats: value t is the uncertainty about id t + 1 once id t has been read."""

    def __init__(self, values: NDArray[np.float32], *, file: Path | None = None) -> None:
        """Wrap entropies that are in memory or mapped into it.

        Args:
            values: one entropy per id of the stream.
            file: where they are stored, if they are; such values are checked when they are read.
        """
        self._values, self._file = values, file

    @property
    def num_ids(self) -> int:
        """Number of values: the length of the id stream."""
        return len(self._values)

    @classmethod
    def open(cls, path: Path, *, num_ids: int) -> "EntropyStore | None":
        """Map finished entropies; None if they were never computed to the end.

        Args:
            path: as `entropies_path` names it.
            num_ids: length of the id stream.

        Raises:
            DataError: the file does not fit the stream.
        """
        if not path.exists():
            return None
        if path.stat().st_size != 4 * num_ids:
            raise DataError(f"{path}: has {path.stat().st_size} bytes, its shards need {4 * num_ids}; delete it")
        return cls(np.memmap(path, dtype=np.float32, mode="r", shape=(num_ids,)), file=path)

    @classmethod
    def create(cls, path: Path, *, num_ids: int) -> "EntropyWriter":
        """Start to write entropies, or go on where an interrupted run stopped.

        Args:
            path: where the finished file will be.
            num_ids: length of the id stream.
        """
        return EntropyWriter(path, num_ids=num_ids)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the entropies of a slice of the id stream.

        Raises:
            IndexError: the slice reaches outside the stream.
            DataError: a value in it is none that an entropy can have.
        """
        if not 0 <= start <= stop <= self.num_ids:
            raise IndexError(f"entropies {start}..{stop} reach outside the stream of {self.num_ids} ids")
        values = np.asarray(self._values[start:stop])
        # Checked here and not at opening: a large store is never read in one go.
        if self._file is not None and not np.isfinite(values).all():
            raise DataError(f"{self._file}: is damaged, a value is not finite; delete it")
        return values


class EntropyWriter:
    """Writes entropies in any order of places; `finish` makes them a store, and leaving early keeps what is done."""

    def __init__(self, path: Path, *, num_ids: int) -> None:
        """Open the unfinished file, or lay it out anew.

        Args:
            path: where the finished file will be.
            num_ids: length of the id stream.
        """
        self._path = path
        self._unfinished = unfinished_path(path)
        if not self._unfinished.exists() or self._unfinished.stat().st_size != 4 * num_ids:
            _lay_out(self._unfinished, num_ids)
        self._values: NDArray[np.float32] = np.memmap(self._unfinished, np.float32, mode="r", shape=(num_ids,))

    @property
    def num_ids(self) -> int:
        """Number of values that a finished file has."""
        return len(self._values)

    @property
    def num_done(self) -> int:
        """Number of values written so far, by this run and those before it (counted by reading the file)."""
        return sum(
            int(np.count_nonzero(~np.isnan(self._values[start : start + _CHUNK])))
            for start in range(0, self.num_ids, _CHUNK)
        )

    def is_done(self, start: int, stop: int) -> bool:
        """Whether every value of a slice has been written."""
        return not np.isnan(self._values[start:stop]).any()

    def write(self, first_id: int, values: NDArray[np.float32]) -> None:
        """Write the entropies of the ids from `first_id` on, in nats.

        Raises:
            IndexError: they reach outside the stream.
            DataError: a value is not finite.
        """
        if not 0 <= first_id <= first_id + len(values) <= self.num_ids:
            raise IndexError(f"{len(values)} entropies from {first_id} on reach outside the {self.num_ids} ids")
        if not np.isfinite(values).all():
            raise DataError(f"an entropy between ids {first_id} and {first_id + len(values)} is not finite")
        # Not through the map: several machines that write into one page would each write back all of it.
        with named_failures(self._path), self._unfinished.open("r+b", buffering=0) as file:
            file.seek(4 * first_id)
            file.write(np.ascontiguousarray(values, dtype=np.float32).tobytes())

    def finish(self) -> EntropyStore:
        """Make the values durable and give the file its final name.

        Raises:
            DataError: some values are missing.
        """
        missing = self.num_ids - self.num_done
        if missing:
            raise DataError(f"{self._path}: {missing} of {self.num_ids} entropies are missing; write them first")
        self.close()
        self._unfinished.replace(self._path)
        sync(self._path.parent)
        return EntropyStore(np.memmap(self._path, dtype=np.float32, mode="r", shape=(self.num_ids,)), file=self._path)

    def close(self) -> None:
        """Make what was written durable; a later `EntropyStore.create` goes on from there."""
        if self._unfinished.exists():
            sync(self._unfinished)

    def __enter__(self) -> "EntropyWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def entropies_path(folder: str | Path, *, split: str, fingerprint: str) -> Path:
    """Return where a folder has the entropies of a split.

    Raises:
        DataError: the fingerprint cannot be part of a name.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", fingerprint):
        raise DataError(f"fingerprint {fingerprint!r} cannot be part of a file name; use letters, digits, . _ -")
    return Path(folder) / split / f"entropies-{fingerprint}.f32"


def unfinished_path(path: Path) -> Path:
    """Return where entropies are until they are whole."""
    return path.with_name(f".{path.name}.unfinished")


def _lay_out(path: Path, num_ids: int) -> None:
    """Write a file full of NaN, under another name until it is whole."""
    started = path.with_name(f"{path.name}.started")
    final = path.with_name(path.name.removeprefix(".").removesuffix(".unfinished"))
    try:
        with named_failures(final):
            with started.open("wb") as file:
                for start in range(0, num_ids, _CHUNK):
                    file.write(np.full(min(_CHUNK, num_ids - start), np.nan, np.float32).tobytes())
            sync(started)
            started.replace(path)
    finally:
        started.unlink(missing_ok=True)
