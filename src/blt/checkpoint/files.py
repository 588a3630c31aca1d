"""Files that are whole or absent, and errors that name the file that was meant.

A file is written under a hidden name beside its own, made durable, and renamed. A kill or a full disk leaves the old
one or the new one, never a part; what a killed process left is deleted by the next write of the same file.
"""

import errno
import json
import os
import platform
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blt.errors import FULL, BLTError, ConfigurationError, OutputError


def write_file(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all, through a link where there is one; its mode and its owner stay as they were.

    Raises:
        OutputError: it cannot be written.
    """
    if path.is_dir():
        raise OutputError("is a folder; give the name of a file", path=path, number=errno.EISDIR)
    with named_failures(path):
        target = Path(os.path.realpath(path))
        _drop_leftovers(target)
        unfinished = target.with_name(f"{_prefix(target)}{os.getpid()}.unfinished")
        try:
            with unfinished.open("wb") as file:
                _keep_mode(file.fileno(), target)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
        sync(target.parent)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write readable JSON; whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_file(path, (json.dumps(values, indent=2) + "\n").encode())


@dataclass(frozen=True)
class FileKind:
    """What one of our writers writes, so that it is told apart from what is the user's."""

    noun: str
    """Such as `page`, for messages."""
    suffixes: tuple[str, ...]
    """Of the names of such files."""
    start: bytes
    """What such a file begins with, in lower case, whatever its name."""
    example: str
    """A name for one."""


PAGE = FileKind("page", (".html", ".htm"), b"<!doctype html", "patches.html")
PICTURE = FileKind("picture", (".png", ".svg"), b"\x89png", "curves.png")


def check_page(path: Path, *, sources: Iterable[Path] = ()) -> None:
    """Refuse a path for a page of HTML where something else would be lost; see `check_output`."""
    check_output(path, PAGE, sources=sources)


def check_output(path: Path, kind: FileKind, *, sources: Iterable[Path] = ()) -> None:
    """Refuse a path for output where something else would be lost.

    Links are followed; devices and pipes are written to as they are.

    Args:
        path: where to write; a file there is replaced if it is of the same kind, or empty.
        kind: what is written.
        sources: what is read, and therefore stays.

    Raises:
        ConfigurationError: what is there may not be replaced.
    """
    if path.is_dir():
        raise ConfigurationError(f"{path}: is a folder; name a file, such as {path / kind.example}")
    if not path.is_file():
        return
    for source in sources:
        if os.path.exists(source) and os.path.samefile(source, path):  # noqa: PTH110, PTH121 (for names of any length)
            raise ConfigurationError(f"{path}: is what is read; give another name")
    if Path(os.path.realpath(path)).suffix.lower() in kind.suffixes or not path.stat().st_size:
        return
    with named_failures(path), path.open("rb") as file:
        start = file.read(64)
    if not start.lower().startswith(kind.start):
        raise ConfigurationError(f"{path}: is there and is no {kind.noun}; give a name that ends in {kind.suffixes[0]}")


def write_page(path: Path, content: bytes, *, sources: Iterable[Path] = ()) -> None:
    """Write a page where `check_page` allows it; see `write_output`."""
    write_output(path, content, PAGE, sources=sources)


def write_output(path: Path, content: bytes, kind: FileKind, *, sources: Iterable[Path] = ()) -> None:
    """Write a file where `check_output` allows it.

    Raises:
        ConfigurationError: what is there may not be replaced.
        OutputError: it cannot be written.
    """
    check_output(path, kind, sources=sources)
    if path.exists() and not path.is_file():
        with named_failures(path), path.open("wb") as file:
            file.write(content)
    else:
        write_file(path, content)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    if sys.platform == "win32" and path.is_dir():
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def named_failures(path: Path, *, within: Path | None = None) -> Iterator[None]:
    """Turn failures of the operating system into one line with the name of the file and the way out.

    Args:
        path: that is being written.
        within: the hidden folder in which it comes to be; files in it are named as they will be named in `path`.

    Raises:
        OutputError: something could not be written.
    """
    try:
        yield
    except OutputError as error:
        if within is None or error.path is None or not error.path.is_relative_to(within):
            raise
        raise OutputError(error.reason, path=path / error.path.relative_to(within), number=error.errno) from error
    except OSError as error:
        if isinstance(error, BLTError):
            raise
        reason = error.strerror or type(error).__name__
        if error.errno in FULL:
            reason += "; make room and run the same command again"
        failed = Path(error.filename) if isinstance(error.filename, str) else None
        if within is not None and failed is not None and failed.is_relative_to(within):
            path = path / failed.relative_to(within)
        raise OutputError(reason, path=path, number=error.errno) from error


def _keep_mode(descriptor: int, target: Path) -> None:
    """Copy the mode and the owner of a file to the one that replaces it."""
    if sys.platform == "win32" or not target.exists():
        return
    before = target.stat()
    with suppress(OSError):  # only root may give files to others
        os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


def _prefix(target: Path) -> str:
    """Return how the hidden names of a file begin: those of this machine, within the length that names may have."""
    return f".{target.name[:40]}.{zlib.crc32(f'{platform.node()}/{target.name}'.encode(errors='replace')):08x}."


def _drop_leftovers(target: Path) -> None:
    """Delete what killed processes of this machine left of the same file."""
    prefix = _prefix(target)
    for name in os.listdir(target.parent):  # noqa: PTH208 (as strings, since folders may be large)
        if name.startswith(prefix) and name.endswith(".unfinished"):
            number = name.removeprefix(prefix).removesuffix(".unfinished")
            if number.isdecimal() and not _is_alive(int(number)):
                target.with_name(name).unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    if process == os.getpid() or sys.platform == "win32":
        return process == os.getpid()
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
