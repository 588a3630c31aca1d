"""The machine's C++ compiler: which one, its flags, and its error messages."""

import contextlib
import functools
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared", "-fno-math-errno")
TIME_LIMIT = 300.0
"""Time limit of one compilation, in seconds."""


class CompileError(Exception):
    """The compiler is missing, does not work, or rejects a source; the message is its own, on one line."""


class RefusedError(CompileError):
    """The compiler ran, and failed; other flags may work."""


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler."""

    command: tuple[str, ...]
    """The command line that starts it, such as `ccache g++`."""

    @functools.cached_property
    def identity(self) -> str:
        """Return an identity that differs between compilers and versions, without starting the compiler.

        Each word that names a program is resolved to its file, whose size and modification time change on an upgrade.
        """
        parts = list(self.command)
        for word in self.command:
            found = shutil.which(word)
            if found is not None:
                file = Path(found).resolve()
                status = file.stat()
                parts += [str(file), str(status.st_size), str(status.st_mtime_ns)]
        return "\0".join(parts)

    @functools.cached_property
    def version(self) -> str:
        """Return the first line of `--version`."""
        try:
            return self._run("--version").splitlines()[0]
        except (CompileError, IndexError):
            return "of unknown version"

    def check(self) -> None:
        """Compile an empty library.

        Raises:
            CompileError: the compiler does not work.
        """
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "empty.cpp"
            source.write_text('extern "C" int empty() { return 0; }\n', encoding="utf-8")
            self.compile(source, ("-fPIC", "-shared"), into=Path(folder) / "empty.so")

    def compile(self, source: Path, flags: tuple[str, ...], *, into: Path) -> None:
        """Compile one file to a shared library.

        Raises:
            CompileError: the compilation failed.
        """
        self._run(str(source), *flags, "-o", str(into))
        if not into.is_file():
            raise RefusedError(f"{shlex.join(self.command)} exited with status 0, but wrote no library")

    def _run(self, *arguments: str) -> str:
        name = shlex.join(self.command)
        try:
            done = _run([*self.command, *arguments])
        except subprocess.TimeoutExpired:
            raise CompileError(f"{name} did not end within {TIME_LIMIT:g} seconds") from None
        except OSError as error:
            raise CompileError(f"{name} cannot be started: {error.strerror or error}") from None
        if done.returncode != 0:
            raise RefusedError(f"{name}: {_reason(done.stderr) or f'exit status {done.returncode}'}")
        return done.stdout


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a compiler, and end it with the programs that it has started itself where it is not waited for."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,
    ) as process:
        try:
            output, errors = process.communicate(timeout=TIME_LIMIT)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def find_compiler() -> Compiler:
    """Return the compiler named by the environment variable CXX (split as a shell would), else the first one found.

    Raises:
        CompileError: no compiler was found.
    """
    given = os.environ.get("CXX", "")
    try:
        words = shlex.split(given)
    except ValueError as error:
        raise CompileError(f"the environment variable CXX is {given!r}: {error}") from None
    if not words:
        found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
        if found is None:
            raise CompileError("no C++ compiler found: neither c++, g++ nor clang++; install one, or set CXX")
        words = [found]
    return Compiler(tuple(words))


PORTABLE_FLAGS = ("-DBLT_PORTABLE", "-ffp-contract=off")
"""Ask for the same bits on every processor."""


def flag_sets(*, openmp: bool, portable: bool = False) -> list[tuple[str, ...]]:
    """Return the flags to try, the fastest first.

    Args:
        openmp: whether the source shares PyTorch's threads; else it may start its own.
        portable: whether it computes the same bits on every processor, where the source knows how to.
    """
    if portable:
        return [(*flags, *PORTABLE_FLAGS) for flags in flag_sets(openmp=openmp)]
    here = "-mcpu=native" if platform.machine() in {"arm64", "aarch64"} else "-march=native"
    if not openmp:
        return [(*FLAGS, here, "-pthread"), (*FLAGS, "-pthread")]
    threads = ("-fopenmp", *_openmp_of_torch())
    return [(*FLAGS, here, *threads), (*FLAGS, *threads), (*FLAGS, here), FLAGS]


def _openmp_of_torch() -> tuple[str, ...]:
    """Return the file of PyTorch's own OpenMP library, so that both share one set of threads."""
    folder = Path(torch.__file__).parent
    files = [path for part in (folder / "lib", folder.parent / "torch.libs") for path in sorted(part.glob("lib*"))]
    return next(((str(path),) for path in files if re.match(r"lib[gi]?omp[\d.-]", path.name)), ())


def _reason(said: str) -> str:
    """Return the most informative line of a compiler's output: the first error, else the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = (line for line in lines if "error" in line.lower())
    return next(errors, lines[-1] if lines else "")
