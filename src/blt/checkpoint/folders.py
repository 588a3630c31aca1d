"""Folders that are whole or absent, and the one rule on what a writer of a folder may replace.

NAME             the old folder or the new one, at every moment
.NAME.saving     the new folder while it is being written; for a moment, the old one on its way out
.NAME.replaced   the old one, for the moment between two renames, on file systems that cannot exchange two folders
.NAME.lock       held by the process that writes
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from blt.checkpoint.exchange import exchange
from blt.checkpoint.files import named_failures, sync
from blt.checkpoint.locks import locked
from blt.errors import BLTError, ModelFolderError

T = TypeVar("T")

_MAX_ATTEMPTS = 10
IS_READ = "is what is read"
_OF_THE_DESKTOP = (".DS_Store",)
"""What a file manager leaves in every folder that is looked at."""


@dataclass(frozen=True, kw_only=True)
class FolderKind:
    """What one of our writers writes, so that it is told apart from what is the user's."""

    noun: str
    """Such as `model folder of blt`, for messages."""
    files: re.Pattern[str]
    """Paths, relative to the folder, of all files that the writer ever writes."""
    is_own: Callable[[Path], bool]
    """Whether a folder has the mark of this writer."""
    error: type[BLTError] = ModelFolderError
    """Raised where a folder may not be replaced."""


def check_replaceable(folder: str | Path, kind: FolderKind, *, sources: Iterable[str | Path] = ()) -> Path:
    """Refuse a folder for output unless it is absent, empty, or one of the same kind; every writer asks this.

    Args:
        folder: as the user gave it; links are followed.
        kind: what is to be written.
        sources: files and folders that are read, and therefore stay.

    Returns:
        Where the folder really is.

    Raises:
        ModelFolderError: (or the class of the kind) writing there would delete what is not ours to delete.
    """
    target = Path(os.path.realpath(folder))
    if not target.exists():
        return target
    flaw = _flaw(target, kind, [Path(os.path.realpath(source)) for source in sources])
    if flaw is not None:
        raise kind.error(f"{folder}: {flaw}; give another name")
    return target


def write_folder(
    folder: Path, fill: Callable[[Path], None], *, kind: FolderKind, sources: Iterable[str | Path] = ()
) -> None:
    """Write a folder so that a kill or a full disk leaves the old one or the new one at its name.

    Args:
        folder: its final name; what is there is replaced if `check_replaceable` allows it, once the new one is whole.
        fill: writes the content into the folder that it is given.
        kind: what is written.
        sources: what is read.

    Raises:
        ModelFolderError: (or the class of the kind) it may not be replaced.
        OutputError: it cannot be written.
    """
    sources = tuple(sources)
    target = check_replaceable(folder, kind, sources=sources)
    unfinished = beside(target, "saving")
    with named_failures(folder, within=unfinished):
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(beside(target, "lock")):
            _settle(target)
            _delete(unfinished)
            try:
                unfinished.mkdir()
                fill(unfinished)
                check_replaceable(folder, kind, sources=sources)  # much may have happened in the meantime
                put_in_place(unfinished, target)
            finally:
                _delete(unfinished)


def put_in_place(new: Path, folder: Path) -> None:
    """Rename a whole folder to its final name; one that is there gives way in one step, and is then deleted.

    Where the file system cannot exchange two folders, there is a moment with none at the name: the old one is then at
    `.NAME.replaced`, and readers and writers put it back (`recover_folder`).
    """
    sync(new)
    if not folder.exists() or not any(folder.iterdir()):
        new.replace(folder)
    elif not exchange(new, folder):
        replaced = beside(folder, "replaced")
        folder.replace(replaced)
        new.replace(folder)
        replaced.replace(new)  # before it is deleted, so that it never comes back
    sync(folder.parent)
    _delete(new)


def recover_folder(folder: Path) -> None:
    """Put a folder back whose replacement was killed between two renames; see `put_in_place`."""
    if not _is_between_renames(folder):
        return
    target = Path(os.path.realpath(folder))
    with suppress(OSError), locked(beside(target, "lock")):  # no right to write: it stays missing, and that is told
        _settle(target)


def read_whole(folder: Path, read: Callable[[Path], T]) -> T:
    """Read a folder, again if it was replaced meanwhile, so that nothing is a mixture of the old one and the new one.

    Args:
        folder: to read.
        read: reads it all.

    Raises:
        BLTError: as `read` does.
    """
    for _ in range(_MAX_ATTEMPTS):
        recover_folder(folder)
        before = _state(folder)
        try:
            result = read(folder)
        except (BLTError, OSError):
            if _is_missing(folder) if before is None else _state(folder) == before:
                raise
            continue
        if _state(folder) == before:
            return result
    raise ModelFolderError(f"{folder}: is replaced again and again while it is read; try again later")


def _is_missing(folder: Path) -> bool:
    """Whether there is no folder, and none on its way.

    It is looked for before and after: a replacement may begin, or end, between two looks.
    """
    return not folder.exists() and not _is_between_renames(folder) and not folder.exists()


def _is_between_renames(folder: Path) -> bool:
    """Whether the old folder has left its name, and the new one has not come there; see `put_in_place`."""
    target = Path(os.path.realpath(folder))
    return not target.exists() and beside(target, "replaced").exists()


def beside(folder: Path, part: str) -> Path:
    """Return the hidden neighbour of a folder, such as `.NAME.lock`."""
    return folder.parent / f".{folder.name}.{part}"


def _flaw(target: Path, kind: FolderKind, sources: list[Path]) -> str | None:
    """Return why what is there may not be replaced, or None."""
    wrong = f"is there and is no {kind.noun}"
    if not target.is_dir():
        return f"{wrong} but a file"
    flaw = _flaw_of_place(target, kind)
    if flaw is not None or not any(target.iterdir()):
        return flaw
    overlaps = list(filter(None, (_overlap(target, source) for source in sources)))
    if IS_READ in overlaps:
        return IS_READ
    foreign = next(_foreign(target, kind), None)
    if foreign is not None:
        return f"{wrong}: it holds {foreign}, which blt did not write"
    if not kind.is_own(target):
        return f"{wrong}, or an incomplete one"
    return next(iter(overlaps), None)


def _foreign(target: Path, kind: FolderKind) -> Iterator[str]:
    """Name what lies in a folder and is not of its writer: other files, links, devices, folders without such files."""
    for place, folders, files in os.walk(target):
        relative = Path(place).relative_to(target)
        for name in sorted(files):
            path = relative / name
            is_plain = not (target / path).is_symlink() and (target / path).is_file()
            if not is_plain or not (kind.files.fullmatch(path.as_posix()) or name in _OF_THE_DESKTOP):
                yield str(path)
        for name in sorted(folders):
            path = relative / name
            # A folder is of the writer if it could hold one of its files.
            if (target / path).is_symlink() or not kind.files.fullmatch(f"{path.as_posix()}/"):
                yield f"{path}{os.sep}"


def _flaw_of_place(target: Path, kind: FolderKind) -> str | None:
    """Return why a folder cannot be replaced because of where it lies, or None."""
    try:
        here = Path.cwd()
    except FileNotFoundError:
        here = None  # it has been deleted
    if here is not None and here.is_relative_to(target):
        return f"is the folder that one works in, or contains it, and so is no {kind.noun} to replace"
    return "is a mount point, and only a folder within it can be written" if os.path.ismount(target) else None


def _overlap(target: Path, source: Path) -> str | None:
    """Return how a folder that would be replaced touches what is read, or None."""
    if not os.path.exists(source):  # noqa: PTH110 (Path refuses names that are too long)
        return None
    if source.samefile(target):
        return IS_READ
    if source.is_relative_to(target):
        return f"holds what is read, {source.relative_to(target)}"
    return "lies in what is read" if target.is_relative_to(source) else None


def _settle(target: Path) -> None:
    """Undo a replacement that was killed between its two renames; the lock is held."""
    replaced = beside(target, "replaced")
    if replaced.exists() and not target.exists():
        replaced.replace(target)
    elif replaced.is_dir() and not replaced.is_symlink():
        _delete(replaced)


def _state(folder: Path) -> tuple[object, ...] | None:
    """Return what changes whenever a folder or one of its files is replaced; None if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            stats = sorted((entry.name, entry.stat()) for entry in entries)
        own = folder.stat()
    except OSError:
        return None
    return (own.st_dev, own.st_ino, *((name, one.st_ino, one.st_size, one.st_mtime_ns) for name, one in stats))


def _delete(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
