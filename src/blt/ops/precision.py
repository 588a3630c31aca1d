"""The precision of matmuls: what autocast asks for, and what the hardware is fast in."""

import functools
import platform
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from blt.ops.native.operators import constant_when_compiled, library

Given = ParamSpec("Given")
Result = TypeVar("Result")
_DEVICE_TYPES = ("cpu", "cuda", "mps", "xpu")
_BY_TILES = 2


def autocast_dtype() -> torch.dtype:
    """Return the dtype of matmuls on a CPU: autocast's within one, else float32."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32


@constant_when_compiled
def has_tiles() -> bool:
    """Whether native kernels multiply bfloat16 by AMX tiles here."""
    functions = library()
    return functions is not None and functions.blt_bfloat16_products() == _BY_TILES


def fast_matmul_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype in which matmuls are fastest on a device: bfloat16 where it has units for it, else float32."""
    return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether matmuls in bfloat16 run on units that make them faster than in float32.

    On a CPU that is AMX, or the dot products of AVX-512 BF16 where they have twice the rate of float32: on AMD and ARM.
    Intel's cores issue half as many of them as of float32's, so that without AMX (a virtual machine may hide it)
    bfloat16 is slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    return _has("amx_tile") or (_has("avx512_bf16") and not _is_intel())


def _has(unit: str) -> bool:
    supported = getattr(torch.cpu, f"_is_{unit}_supported", None)  # private to PyTorch, which may drop it
    return supported is not None and supported()


def _is_intel() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return "GenuineIntel" in (cpuinfo.read_text(errors="replace") if cpuinfo.exists() else platform.processor())


def without_autocast(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a function to run in the precision of the weights, with any surrounding autocast disabled.

    Autocast rounds a whole pass and a step in different places: only without it does a cached step agree with the full
    forward pass.
    """

    @functools.wraps(function)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        enabled = [kind for kind in _DEVICE_TYPES if torch.is_autocast_enabled(kind)]
        if not enabled:
            return function(*args, **kwargs)
        with ExitStack() as stack:
            for kind in enabled:
                stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*args, **kwargs)

    return run
