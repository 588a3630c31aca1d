"""The cache of compiled libraries, in a folder that only its user can write.

Loading a library runs its code, so it is taken only from a folder and a file that belong to the user and that nobody
else can write, and only if its recorded checksum matches. Anything else counts as absent, and is compiled again.
"""

import atexit
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOM = 32 << 20
"""Free bytes that a folder must have."""
REMEMBERED = 24 * 3600.0
"""Seconds for which a failed compilation is not tried again."""
KEPT = 16
"""Libraries kept per source; older ones are deleted."""


@dataclass(frozen=True)
class Built:
    """How a library was compiled; stored beside the library."""

    sha256: str
    compiler: str
    """Its version line."""
    flags: tuple[str, ...]
    seconds: float
    """Duration of the compilation."""


@dataclass(frozen=True)
class CacheFolder:
    """A folder for compiled libraries."""

    path: Path
    refused: str = ""
    """Why the preferred folders cannot be used; empty if this is the preferred one."""


def choose_folder() -> CacheFolder:
    """Return the first usable folder.

    In this order: `blt` in XDG_CACHE_HOME (ignored if relative, as its specification asks) or in `~/.cache`; a folder
    of this user among temporary files; a temporary one of this process alone, which it deletes when it ends.
    """
    refused = []
    temporary = Path(tempfile.gettempdir()) / f"blt-{os.geteuid()}"
    for folder in (_home_cache(), temporary):
        if folder is None:
            refused.append("there is no home folder")
            continue
        try:
            _make_private(folder)
        except OSError as error:
            refused.append(f"{folder} cannot be used ({error.strerror or error})")
            continue
        return CacheFolder(folder, "; ".join(refused))
    own = Path(tempfile.mkdtemp(prefix="blt-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return CacheFolder(own, "; ".join(refused))


def _home_cache() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base and Path(base).is_absolute():
        return Path(base) / "blt"
    try:
        return Path.home() / ".cache" / "blt"
    except RuntimeError:
        return None


def _make_private(folder: Path) -> None:
    """Make the folder, and check that it belongs to the user, is writable, has free space, and is closed to others."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise OSError("it belongs to another user")
    if status.st_mode & 0o077:
        folder.chmod(0o700)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0" * 4096)
        file.flush()
    if shutil.disk_usage(folder).free < ROOM:
        raise OSError("the disk is full")


def find(library: Path) -> Built | None:
    """Return how a library was built; None unless it is intact and belongs to the user."""
    try:
        built = json.loads(_read_own(_beside(library)))
        built = Built(built["sha256"], built["compiler"], tuple(built["flags"]), built["seconds"])
        return built if hashlib.sha256(_read_own(library)).hexdigest() == built.sha256 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(compiled: Path, library: Path, *, compiler: str, flags: tuple[str, ...], seconds: float) -> Built:
    """Store a compiled library with its checksum, and delete the oldest of the same source."""
    data = compiled.read_bytes()
    built = Built(hashlib.sha256(data).hexdigest(), compiler, flags, seconds)
    _write(library, data)
    _write(_beside(library), json.dumps(asdict(built)).encode())
    _failure_file(library).unlink(missing_ok=True)
    kind = library.name.rpartition("-")[0]
    others = sorted(library.parent.glob(f"{kind}-*.so"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in others[KEPT:]:
        for file in (_beside(old), old):
            file.unlink(missing_ok=True)
    return built


def remember_failure(library: Path, message: str) -> None:
    """Record that this library cannot be compiled, so that other processes do not try again."""
    _write(_failure_file(library), json.dumps({"message": message, "time": time.time()}).encode())


def known_failure(library: Path) -> str | None:
    """Return why the last attempt to compile this library failed, if it was recent."""
    try:
        noted = json.loads(_read_own(_failure_file(library)))
        recent = 0 <= time.time() - noted["time"] < REMEMBERED
        return str(noted["message"]) if recent else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget_failure(library: Path) -> None:
    """Delete the record of a failed compilation."""
    _failure_file(library).unlink(missing_ok=True)


def _beside(library: Path) -> Path:
    return library.with_suffix(".json")


def _failure_file(library: Path) -> Path:
    return library.with_suffix(".failed")


def _read_own(path: Path) -> bytes:
    """Return the content of a regular file that belongs to the user and that nobody else can write."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        is_own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
        if not is_own:
            raise OSError(f"{path}: not the user's own file")
        return file.read()


def _write(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".unfinished")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
