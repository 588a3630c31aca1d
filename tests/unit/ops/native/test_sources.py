"""The C++ sources: form, and no warnings for any processor that they know of."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blt.decoder.library import CORE
from blt.ops.native import build

FOLDERS = (build.FOLDER, CORE)
SOURCES = [source for folder in FOLDERS for source in sorted(folder.glob("*.cpp"))]
PROCESSORS = ["x86-64", "x86-64-v3", "x86-64-v4", "sapphirerapids"]
# Not -O2: with it, GCC 12 warns of its own headers for AVX-512 (its bug 105593).
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-std=c++17", "-fsyntax-only", "-Wno-psabi")
# psabi: vectors wider than the processor's are returned, but only within one translation unit.


def test_the_sources_are_formatted_as_clang_format_formats_them():
    program = Path(sys.executable).with_name("clang-format")
    if not program.exists():
        pytest.skip("no clang-format here: pip install clang-format")
    files = [*SOURCES, *(header for folder in FOLDERS for header in sorted(folder.glob("*.h")))]
    assert len(files) > 25
    done = subprocess.run([program, "--dry-run", "-Werror", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="no GCC here")
@pytest.mark.parametrize("threads", [("-fopenmp",), ("-Wno-unknown-pragmas",)], ids=["OpenMP", "no OpenMP"])
@pytest.mark.parametrize("processor", PROCESSORS if platform.machine() == "x86_64" else ["native"])
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_sources_compile_without_a_warning(source, processor, threads):
    command = ["g++", *WARNINGS, f"-march={processor}", *threads, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
