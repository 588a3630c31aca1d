"""Where products of bfloat16 matrices are fast."""

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Say whether products of bfloat16 matrices run on units made for them; elsewhere they are slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    tests = [getattr(torch.cpu, f"_is_{unit}_supported", None) for unit in ("avx512_bf16", "amx_tile")]
    return any(test() for test in tests if test is not None)  # private to PyTorch, which may drop them
