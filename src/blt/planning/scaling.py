"""Where a plan lies far off what is published on scaling BLTs: Compute Optimal Tokenization, arXiv 2605.01188."""

from blt.model.cost import with_unit
from blt.planning.workload import Workload

BYTES_PER_GLOBAL_PARAMETER = 60
"""Bytes of text per parameter of the global transformer that are best for a compute budget, at any patch length."""
BEST_PATCH_BYTES, AT_FLOPS = 3.7, 1e20
"""The best mean patch at these FLOPs; it falls slowly with more compute, and is longer with less."""
FAR = 4.0
"""How many times too few or too many bytes are far off. Many times more is the habit where a small model is to be
good rather than cheap to train, so that it is told, not refused."""
FAR_PATCH = 1.5
"""The same of patch lengths."""


def budget_of(workload: Workload) -> float:
    """Return the bytes of text that the published scaling gives a shape."""
    return float(BYTES_PER_GLOBAL_PARAMETER * global_parameters(workload))


def global_parameters(workload: Workload) -> int:
    """Return the parameters of the global transformer."""
    return next(part.num_parameters for part in workload.cost.parts if part.name == "global transformer")


def warnings_of(workload: Workload, *, num_bytes: int | float) -> list[str]:
    """Return one line for each figure that lies far off.

    Args:
        workload: what is trained.
        num_bytes: how much text is read in all.
    """
    found = []
    per_parameter = num_bytes / global_parameters(workload)
    times = per_parameter / BYTES_PER_GLOBAL_PARAMETER
    if not 1 / FAR <= times <= FAR:
        amount, times, size = ("little", 1 / times, "smaller") if times < 1 else ("much", times, "larger")
        best = f"about {BYTES_PER_GLOBAL_PARAMETER} are best for the compute: {with_unit(budget_of(workload))}B of text"
        found.append(
            f"{amount} text for the shape: {per_parameter:.3g} bytes per parameter of the global transformer, where "
            f"{best}, or a global transformer some {times:.2g} times {size}"
        )
    flops, patch = workload.cost.training_flops * num_bytes, workload.mean_patch_bytes
    if patch * FAR_PATCH < BEST_PATCH_BYTES or (flops >= AT_FLOPS and patch > FAR_PATCH * BEST_PATCH_BYTES):
        length = "short" if patch < BEST_PATCH_BYTES else "long"
        best = f"about {BEST_PATCH_BYTES} are best at {AT_FLOPS:.0e} FLOPs, more below and slowly fewer above"
        found.append(f"{length} patches: {patch:g} bytes at {flops:.2g} FLOPs; {best}")
    return found
