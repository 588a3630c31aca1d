"""Compile C++ sources and load them; libraries are cached between processes.

A source is one file that includes headers of its own folder. It is compiled at first use, by the machine's compiler and
for its processor: one process compiles, others wait. A failure is reported once, with the compiler's own message, and
remembered; `blt doctor` shows the reason and tries again.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from blt.errors import one_line
from blt.ops.native import library_cache
from blt.ops.native.compiler import TIME_LIMIT, CompileError, Compiler, RefusedError, find_compiler, flag_sets
from blt.ops.native.library_cache import Built, CacheFolder

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Outcome:
    """The result of loading a library."""

    library: ctypes.CDLL | None
    """The loaded library; None on failure."""
    reason: str = ""
    """Why it could not be loaded."""
    path: Path | None = None
    """The library's file, if known."""
    built: Built | None = None
    """How it was compiled."""
    is_new: bool = False
    """Whether it was compiled just now."""
    is_remembered: bool = False
    """Whether the compile failed earlier, and was not tried again."""


def load(name: str, *, folder: Path = FOLDER, openmp: bool = True, portable: bool = False) -> ctypes.CDLL | None:
    """Return the compiled functions of a C++ source, or None if they are not available.

    The first call of a process may compile, which takes seconds; later calls cost nothing.

    Args:
        name: the source is `name.cpp`.
        folder: where it lies, with the headers that it includes.
        openmp: whether it shares PyTorch's threads; otherwise it may start threads of its own.
        portable: whether it computes the same bits on every processor, where the source knows how to.
    """
    return outcome(name, folder=folder, openmp=openmp, portable=portable).library


@functools.cache
def outcome(name: str, *, folder: Path = FOLDER, openmp: bool = True, portable: bool = False) -> Outcome:
    """Load a library, as `load` does, and return the outcome with its reason."""
    if os.environ.get("BLT_NATIVE") == "0":
        return Outcome(None, "the environment variable BLT_NATIVE is 0")
    if sys.platform == "win32":
        return Outcome(None, "not on Windows")
    try:
        compiler = find_compiler()
    except CompileError as error:
        return _given_up(name, error) if os.environ.get("CXX") else _without_compiler(error)
    flags = flag_sets(openmp=openmp, portable=portable)
    try:
        cache = cache_folder()
        path = cache.path / f"{name}-{_key(folder / f'{name}.cpp', compiler, flags)}.so"
    except OSError as error:
        return _given_up(name, error)
    found = _stored(path)
    if found is not None:
        return found
    try:
        with _lock(path):
            found = _stored(path)  # another process may have compiled it meanwhile
            if found is not None:
                return found
            failure = library_cache.known_failure(path)
            if failure is not None:
                return Outcome(None, failure, path, is_remembered=True)
            reason = f", since {cache.refused}" if cache.refused else ""
            _say(f"compiling {name}.cpp for this machine, once, into {cache.path}{reason}")
            try:
                built = _compile(folder / f"{name}.cpp", compiler, path, flags)
            except CompileError as error:
                library_cache.remember_failure(path, one_line(str(error)))
                raise
        return Outcome(ctypes.CDLL(str(path)), "", path, built, is_new=True)
    except (CompileError, OSError) as error:
        return _given_up(name, error, path)


def try_again(name: str, *, folder: Path = FOLDER, openmp: bool = True) -> Outcome:
    """Load a library, ignoring a remembered failure."""
    found = outcome(name, folder=folder, openmp=openmp)
    if found.is_remembered and found.path is not None:
        library_cache.forget_failure(found.path)
        outcome.cache_clear()
        found = outcome(name, folder=folder, openmp=openmp)
    return found


@functools.cache
def cache_folder() -> CacheFolder:
    """Return the folder of compiled libraries that this process uses."""
    return library_cache.choose_folder()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the lock for compiling this library; on a file system without locks, proceed without it."""
    lock = FileLock(path.with_suffix(".lock"), timeout=2 * TIME_LIMIT, mode=0o600)
    try:
        lock.acquire()
    except Timeout:
        raise CompileError(f"another process holds {path.with_suffix('.lock')}") from None
    except NotImplementedError:
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _compile(source: Path, compiler: Compiler, path: Path, sets: list[tuple[str, ...]]) -> Built:
    """Compile with the first set of flags that the compiler accepts."""
    compiler.check()
    start = time.monotonic()
    failures = []
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        unfinished = Path(scratch) / path.name
        for flags in sets:
            try:
                compiler.compile(source, flags, into=unfinished)
            except RefusedError as error:
                failures.append(error)
                continue
            seconds = time.monotonic() - start
            return library_cache.keep(unfinished, path, compiler=compiler.version, flags=flags, seconds=seconds)
    raise failures[-1]


def _stored(path: Path) -> Outcome | None:
    """Load the cached library; None if there is none, or if it does not load on this system."""
    built = library_cache.find(path)
    if built is None:
        return None
    try:
        return Outcome(ctypes.CDLL(str(path)), "", path, built)
    except OSError:
        return None


def _key(source: Path, compiler: Compiler, sets: list[tuple[str, ...]]) -> str:
    """Return a hash of all that the library depends on: source, compiler, processor and PyTorch."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else [platform.processor()]
    processor = [line for line in lines if line.startswith(("flags", "Features", "model name"))][:2]
    code = [file.read_text(encoding="utf-8") for file in (source, *sorted(source.parent.glob("*.h")))]
    flags = [flag for flags in sets for flag in flags]
    system = [*processor, platform.machine(), *platform.libc_ver(), torch.__version__]
    parts = [*code, compiler.identity, *flags, *system]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _given_up(name: str, error: Exception, path: Path | None = None) -> Outcome:
    reason = one_line(str(error))
    _say(f"{name}.cpp could not be compiled, so that PyTorch computes, more slowly: {reason} (see `blt doctor`)")
    return Outcome(None, reason, path)


def _without_compiler(error: CompileError) -> Outcome:
    """Print once a day, whichever library is asked for, that there is no compiler."""
    reason = one_line(str(error))
    with contextlib.suppress(OSError):
        noted = cache_folder().path / "compiler"
        if library_cache.known_failure(noted) is None:
            _say(f"PyTorch computes, more slowly: {reason} (see `blt doctor`)")
            library_cache.remember_failure(noted, reason)
    return Outcome(None, reason)


def _say(message: str) -> None:
    if sys.stderr is not None:  # closed
        sys.stderr.write(f"blt: {one_line(message)}\n")
        sys.stderr.flush()
