"""Compiles C++ and loads it; the library is kept for the next time."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared", "-fno-math-errno")


@functools.cache
def load(source: str) -> ctypes.CDLL | None:
    """Return the compiled functions of a file of this folder, or None where there are none to be had.

    Args:
        source: the file's name without `.cpp`.
    """
    if os.environ.get("BLT_NATIVE") == "0" or sys.platform == "win32":
        return None
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    for flags in _flags():
        path = _cache_folder() / f"{source}-{_name(source, compiler, flags)}.so"
        try:
            if path.is_file() or _compile(source, compiler, flags, path):
                return ctypes.CDLL(str(path))
        except OSError:  # nowhere to write, or a library of another system
            return None
    return None


def _flags() -> list[tuple[str, ...]]:
    """Return the flags to try, the fastest first."""
    here = "-mcpu=native" if platform.machine() in {"arm64", "aarch64"} else "-march=native"
    threads = ("-fopenmp", *_openmp_of_torch())
    return [(*FLAGS, here, *threads), (*FLAGS, *threads), (*FLAGS, here), FLAGS]


def _openmp_of_torch() -> tuple[str, ...]:
    """Name PyTorch's own OpenMP library, so that both share one set of threads."""
    folder = Path(torch.__file__).parent
    found = sorted(path for part in (folder / "lib", folder.parent / "torch.libs") for path in part.glob("lib*omp*.*"))
    return (str(found[0]),) if found else ()


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "blt"


def _name(source: str, compiler: str, flags: tuple[str, ...]) -> str:
    """Tell apart what another source, compiler, processor or PyTorch would give."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else [platform.processor()]
    processor = [line for line in lines if line.startswith(("flags", "Features", "model name"))][:2]
    files = (FOLDER / f"{source}.cpp", *sorted(FOLDER.glob("*.h")))
    code = [file.read_text(encoding="utf-8") for file in files]
    parts = [*code, compiler, *flags, *processor, platform.machine(), torch.__version__]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _compile(source: str, compiler: str, flags: tuple[str, ...], path: Path) -> bool:
    """Compile to that file, whole or not at all; say whether it worked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        unfinished = Path(scratch) / path.name
        command = [compiler, str(FOLDER / f"{source}.cpp"), *flags, "-o", str(unfinished)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            return False
        unfinished.replace(path)
    return True
