"""The folder that `prepare` writes, and how it comes to be all at once.

out                  only ever a finished folder
.out.unfinished      what is being written; gets the name `out` at the end (`blt.checkpoint.put_in_place`)
.out.lock            held by the process that prepares
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from blt.checkpoint import FolderKind, beside, check_replaceable, locked, put_in_place, recover_folder
from blt.data.index import read_index
from blt.data.store import local_path
from blt.errors import DataError

PROGRESS_FILE = "progress.json"


def _is_own(folder: Path) -> bool:
    try:
        return bool(read_index(folder))
    except DataError:
        return False


PREPARED_FOLDER = FolderKind(
    noun="prepared folder",
    files=re.compile(
        r"index\.json|(train|validation)/(shards\.table|shard-\d{5,}\.(bin|ends)|\.?entropies-[^/]+\.f32(\.unfinished)?(\.started)?)?"
    ),
    is_own=_is_own,
    error=DataError,
)
"""What `prepare` and the entropies of training write there, and `prepare --overwrite` may replace."""


class OutputFolder:
    """Where the finished folder will be, and the hidden neighbours that it is made of."""

    def __init__(self, out: str | Path, *, sources: Iterable[str | Path] = ()) -> None:
        """Derive the paths; nothing is touched yet.

        Args:
            out: the finished folder.
            sources: files and folders that are read, and therefore never replaced.
        """
        self._given, self._sources = local_path(out), tuple(sources)
        self.out = Path(os.path.realpath(self._given))
        self.unfinished = beside(self.out, "unfinished")
        self.place = str(self.out)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from preparing the same folder, and clean up what a stop in `commit` left.

        Raises:
            DataError: another process is at it.
        """
        self.out.parent.mkdir(parents=True, exist_ok=True)
        recover_folder(self.out)
        taken = DataError(f"{self.out}: another process is preparing it; wait for its end and try again")
        with locked(beside(self.out, "lock"), refusal=taken):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    self.unfinished.rmdir()  # only if nothing was written

    def check_replaceable(self) -> None:
        """Refuse to replace what is there unless it is a prepared folder and nothing that is read lies in it.

        Raises:
            DataError: with the reason.
        """
        check_replaceable(self._given, PREPARED_FOLDER, sources=self._sources)

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
        """Delete what an interrupted run left."""
        shutil.rmtree(self.unfinished, ignore_errors=True)

    def commit(self) -> None:
        """Put the unfinished folder, whole by now, at its name; an old one gives way only now.

        Raises:
            DataError: what is there may not be replaced.
        """
        self.check_replaceable()
        (self.unfinished / PROGRESS_FILE).unlink(missing_ok=True)
        put_in_place(self.unfinished, self.out)
