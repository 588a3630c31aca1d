"""The folder that `prepare` writes, and how it comes to be all at once.

out                  only ever a finished folder
.out.unfinished      what is being written; renamed to `out` at the end
.out.replaced        the old folder, for the moment in which an overwritten one gives way
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blt.data.durable import sync
from blt.data.index import read_index
from blt.errors import DataError

if sys.platform != "win32":
    import fcntl

PROGRESS_FILE = "progress.json"


class OutputFolder:
    """Where the finished folder will be, and the hidden neighbours that it is made of."""

    def __init__(self, out: str | Path) -> None:
        """Derive the paths; nothing is touched yet.

        Args:
            out: the finished folder.
        """
        self.out = Path(os.path.realpath(out))
        self.unfinished = self.out.with_name(f".{self.out.name}.unfinished")
        self.replaced = self.out.with_name(f".{self.out.name}.replaced")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from preparing the same folder, and clean up what a stop in `commit` left.

        Raises:
            DataError: another process is at it.
        """
        self.unfinished.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.unfinished, os.O_RDONLY)
        try:
            self._lock(descriptor)
            self._settle()
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    self.unfinished.rmdir()  # only if nothing was written
        finally:
            os.close(descriptor)

    def finished_index(self) -> dict[str, Any] | None:
        """Return the index of the finished folder; None if there is nothing at its place.

        Raises:
            DataError: something else is there.
        """
        if not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            return None
        try:
            return read_index(self.out)
        except DataError as error:
            raise DataError(f"{error}; nothing was changed: choose another --out") from None

    def start_over(self) -> None:
        """Delete what an interrupted run left, but not the folder itself, which holds the lock."""
        for path in self.unfinished.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def commit(self) -> None:
        """Return the unfinished folder, whole by now, its name; an old one gives way only now."""
        (self.unfinished / PROGRESS_FILE).unlink(missing_ok=True)
        sync(self.unfinished)
        if self.out.exists():
            self.out.replace(self.replaced)
        self.unfinished.replace(self.out)
        sync(self.out.parent)
        if self.replaced.exists():
            shutil.rmtree(self.replaced)

    def _lock(self, descriptor: int) -> None:
        """Lock the unfinished folder for as long as it is open; the lock dies with the process."""
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_still_there = os.fstat(descriptor).st_ino == self.unfinished.stat().st_ino
        except (BlockingIOError, FileNotFoundError):
            is_still_there = False
        if not is_still_there:
            raise DataError(f"{self.out}: another process is preparing it; wait for its end and try again")

    def _settle(self) -> None:
        """Undo or complete a `commit` that was stopped between its two renames."""
        if not self.replaced.exists():
            return
        if self.out.exists():
            shutil.rmtree(self.replaced)
        else:
            self.replaced.replace(self.out)
