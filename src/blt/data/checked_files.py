"""Which files of prepared folders have been compared with their sha256 already, so that opening them costs nothing.

A file is known by its size, time of change and inode. What was found is kept in the user's cache folder, one small file
for each prepared folder, so that data on a read-only disk are remembered too.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blt.checkpoint import write_file
from blt.errors import DataError

_SETTLED_SECONDS = 2.0
"""Age from which a file is remembered: a newer one might change once more within the resolution of its time stamp."""


@dataclass(frozen=True, kw_only=True)
class MappedFile:
    """A file of a prepared folder, mapped or read."""

    name: str
    """Within the folder."""
    content: NDArray[np.uint8]
    """What is in it."""
    stat: os.stat_result
    """What the system said when it was opened."""
    sha256: str
    """What its content should have."""

    @property
    def identity(self) -> list[object]:
        """What is remembered of a file that was found right."""
        return [self.stat.st_size, self.stat.st_mtime_ns, self.stat.st_ino, self.sha256]


def check_files(folder: Path, files: Iterable[MappedFile], *, on_file: Callable[[], None]) -> None:
    """Compare files with their sha256, but for those that are remembered as right.

    Args:
        folder: the prepared folder.
        files: of it.
        on_file: told after each file that was read.

    Raises:
        DataError: a file is not what the index says.
    """
    path = _memory_of(folder)
    remembered = _read(path)
    found = dict(remembered)
    for file in files:
        if remembered.get(file.name) == file.identity:
            continue
        sha256 = hashlib.sha256(file.content.data).hexdigest()
        if sha256 != file.sha256:
            raise DataError(
                f"{folder / file.name}: has changed (sha256 {sha256[:12]}, index.json says {file.sha256[:12]}); "
                "prepare again with --overwrite, or copy it again"
            )
        if time.time() - file.stat.st_mtime > _SETTLED_SECONDS:
            found[file.name] = file.identity
        on_file()
    if path is not None and found != remembered:
        with contextlib.suppress(OSError):  # no room, or no right to write there: they are compared again next time
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_file(path, json.dumps(found).encode())


def _read(path: Path | None) -> dict[str, object]:
    try:
        found = json.loads(path.read_bytes()) if path is not None else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _memory_of(folder: Path) -> Path | None:
    """Return where files of a folder are remembered; None where there is no home directory."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():
        try:
            cache = Path.home() / ".cache"
        except RuntimeError:
            return None
    name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
    return cache / "blt" / "checked" / f"{name}.json"
