"""Where matmuls in bfloat16 are faster than in float32."""

import platform
from pathlib import Path

import torch


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
