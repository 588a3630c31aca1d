"""A prepared folder that comes to be on this machine, and is then uploaded to an address.

~/.cache/blt/uploads/NAME                  never there: the finished folder is at the address
~/.cache/blt/uploads/.NAME.unfinished      what is being written, and then uploaded; deleted at the end
        …/uploaded                         names of the files that are there already, one a line
"""

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from blt.data.output_folder import PREPARED_FOLDER, PROGRESS_FILE, OutputFolder
from blt.data.store import MissingFileError, Store
from blt.data.store_folder import read_stored_index
from blt.errors import DataError

_INDEX, _UPLOADED = "index.json", "uploaded"


class StoreOutput(OutputFolder):
    """Where the folder comes to be, and the address that it is uploaded to.

    The index is uploaded last, and the old one deleted first: a folder that is there in part is never taken for whole.
    An upload that was interrupted goes on with the files that are not there yet.
    """

    def __init__(self, out: str | Path, *, sources: Iterable[str | Path] = ()) -> None:
        """Find the store; nothing is read.

        Args:
            out: address of the finished folder.
            sources: files and folders that are read.

        Raises:
            MissingExtraError: fsspec is not installed.
            DataError: there is no such kind of store, or its package is not installed.
        """
        self._store = Store(str(out))
        super().__init__(_spool_of(self._store.address), sources=sources)
        self.place = self._store.address

    def check_replaceable(self) -> None:
        """Refuse to write among files that no prepared folder has.

        Raises:
            DataError: there are some, or the store cannot be read.
        """
        for name in self._store.names():
            if not PREPARED_FOLDER.files.fullmatch(name):
                raise DataError(
                    f"{self.place}: holds {name!r}, which is no file of a prepared folder; choose another --out"
                )

    def finished_index(self) -> dict[str, Any] | None:
        """Return the index of the folder at the address; None if there is none.

        Raises:
            DataError: something else is there, or the store cannot be read.
        """
        try:
            return read_stored_index(self._store)[1]
        except MissingFileError:
            return None
        except DataError as error:
            raise DataError(f"{error}; nothing was changed: choose another --out") from None

    def commit(self) -> None:
        """Upload the unfinished folder, whole by now; an old one stops to be one before the first file.

        Raises:
            DataError: what is there may not be replaced, or the store cannot be written.
        """
        self.check_replaceable()
        (self.unfinished / PROGRESS_FILE).unlink(missing_ok=True)
        note = self.unfinished / _UPLOADED
        there = self._store.names()
        if _INDEX in there:  # of a folder that is replaced; what was uploaded before it came is of no use
            self._store.delete(_INDEX)
            note.unlink(missing_ok=True)
        uploaded = set(note.read_text().split("\n")) & set(there) if note.is_file() else set()
        files = {path.relative_to(self.unfinished).as_posix() for path in self.unfinished.rglob("*") if path.is_file()}
        files -= {_INDEX, _UPLOADED}
        with note.open("a") as done:
            for name in sorted(files - uploaded):
                self._store.upload(self.unfinished / name, name)
                done.write(f"{name}\n")
                done.flush()
        for stale in set(there) - files - {_INDEX}:
            self._store.delete(stale)
        self._store.upload(self.unfinished / _INDEX, _INDEX)
        shutil.rmtree(self.unfinished)


def _spool_of(address: str) -> Path:
    """Return where the folder of an address comes to be: always the same, so that an interrupted run goes on."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():
        try:
            cache = Path.home() / ".cache"
        except RuntimeError:
            raise DataError(f"{address}: there is no home directory to write in first; set XDG_CACHE_HOME") from None
    return cache / "blt" / "uploads" / hashlib.sha256(address.encode()).hexdigest()[:32]
