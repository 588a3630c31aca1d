"""`blt doctor`: what runs here, how fast it may, and why not."""

import importlib.metadata
import json
import platform
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import torch

from blt import __version__
from blt.cli.options import json_option
from blt.decoder import library as decoder
from blt.distributed import num_processors
from blt.ops.native import build
from blt.ops.native.build import Outcome, cache_folder, try_again
from blt.ops.native.compiler import CompileError, find_compiler

LIBRARIES: dict[str, dict[str, Any]] = {
    "decoding": {"name": "decoder", "folder": decoder.CORE, "openmp": False},
    "training": {"name": "training", "folder": build.FOLDER, "openmp": True},
}
"""What each native library is for, and how it is built."""
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16", "sve")
_PRODUCTS = ("by float32 arithmetic", "by dot products of pairs (AVX-512)", "by tiles (AMX)")


@dataclass(frozen=True)
class _Kernels:
    """One native library."""

    purpose: str
    source: str
    used: bool
    reason: str = ""
    """Why it is not used."""
    path: str | None = None
    compiled_by: str | None = None
    flags: list[str] = field(default_factory=list)
    seconds: float | None = None
    """How long the compile took."""
    compiled_now: bool = False
    lacks_threads: bool = False
    """Whether it runs on one thread, for want of OpenMP."""


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Show what runs here and why: kernels, processor, threads, PyTorch, cache folder, extras, GPU.

    Kernels that are not there yet are compiled, also where that failed before; the compiler's own message is shown.
    """
    found = _examine()
    click.echo(json.dumps(found) if as_json else "\n".join(_table(found)))


def _examine() -> dict[str, Any]:
    kernels = [_kernels(purpose, try_again(**built), **built) for purpose, built in LIBRARIES.items()]
    cache = cache_folder()
    return {
        "blt": __version__,
        "python": platform.python_version(),
        "pytorch": torch.__version__,
        "system": platform.platform(),
        "processor": _processor(),
        "threads": {"used": torch.get_num_threads(), "processors": num_processors()},
        "compiler": _compiler(),
        "kernels": [asdict(each) for each in kernels],
        "bfloat16_products": _bfloat16_products(),
        "cache_folder": {"path": str(cache.path), "refused": cache.refused, "bytes": _size(cache.path)},
        "extras": _extras(),
        "gpus": _gpus(),
    }


def _kernels(purpose: str, found: Outcome, *, name: str, openmp: bool, **_: Any) -> _Kernels:
    built = found.built
    return _Kernels(
        purpose=purpose,
        source=f"{name}.cpp",
        used=found.library is not None,
        reason=found.reason,
        path=None if found.path is None else str(found.path),
        compiled_by=built.compiler if built else None,
        flags=list(built.flags) if built else [],
        seconds=round(built.seconds, 1) if built else None,
        compiled_now=found.is_new,
        lacks_threads=openmp and built is not None and "-fopenmp" not in built.flags,
    )


def _bfloat16_products() -> str | None:
    from blt.ops.native.operators import library

    functions = library()
    return None if functions is None else _PRODUCTS[functions.blt_bfloat16_products()]


def _compiler() -> dict[str, str]:
    try:
        compiler = find_compiler()
    except CompileError as error:
        return {"reason": str(error)}
    return {"command": " ".join(compiler.command), "version": compiler.version}


def _processor() -> dict[str, Any]:
    name, features = platform.processor() or platform.machine(), set[str]()
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in {"flags", "Features"}:
            features.update(value.split())
    return {"name": name, "features": [feature for feature in FEATURES if feature in features]}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) if folder.is_dir() else 0


def _extras() -> dict[str, dict[str, str | None]]:
    """Return the version of each package of each extra; None where it is missing."""
    try:
        required = importlib.metadata.requires("blt-llm") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, dict[str, str | None]] = {}
    for line in required:
        match = re.match(r"""([\w.-]+).*;.*extra == ["']([\w-]+)["']""", line)
        if match is not None and match[1] != "blt-llm":
            found.setdefault(match[2], {})[match[1]] = _version(match[1])
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return [*names, "Apple (mps)"] if torch.backends.mps.is_available() else names


def _table(found: dict[str, Any]) -> list[str]:
    processor, threads, cache = found["processor"], found["threads"], found["cache_folder"]
    features = ", ".join(processor["features"]) or "none that matter here"
    compiler = found["compiler"]
    lines = [
        f"blt {found['blt']}, Python {found['python']}, PyTorch {found['pytorch']}, {found['system']}",
        f"processor       {processor['name']}: {features}",
        f"threads         {threads['used']} of {threads['processors']} processors",
        f"compiler        {compiler.get('reason') or '{command}: {version}'.format(**compiler)}",
    ]
    for each in found["kernels"]:
        lines.append(f"{each['purpose']:<16}{_told(each)}")
    if found["bfloat16_products"] is not None:
        lines.append(f"bfloat16        {found['bfloat16_products']}")
    refused = f"; {cache['refused']}" if cache["refused"] else ""
    lines.append(f"cache folder    {cache['path']}: {cache['bytes'] / 2**20:.1f} MiB{refused}")
    lines.append(f"GPU             {', '.join(found['gpus']) or 'none that PyTorch sees'}")
    for extra, packages in found["extras"].items():
        versions = ", ".join(f"{name} {version or 'missing'}" for name, version in packages.items())
        way_out = "" if all(packages.values()) else f" (pip install 'blt-llm[{extra}]')"
        lines.append(f"{'extra ' + extra:<16}{versions}{way_out}")
    return lines


def _told(kernels: dict[str, Any]) -> str:
    if not kernels["used"]:
        return f"by PyTorch, more slowly: {kernels['reason']}"
    when = "just now" if kernels["compiled_now"] else "before"
    threads = ", without threads: the compiler has no OpenMP" if kernels["lacks_threads"] else ""
    tuned = "" if any(flag.endswith("native") for flag in kernels["flags"]) else ", not for this processor"
    return f"by C++ ({kernels['source']}), compiled {when} in {kernels['seconds']:g} s{tuned}{threads}"
