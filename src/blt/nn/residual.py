"""The residual addition of a layer."""

import torch
from torch.nn import functional as F

from blt.ops import residual_add
from blt.shapes import Float, Tensor


def add(
    states: Float[Tensor, "*lead D"], update: Float[Tensor, "*lead D"], *, dropout: float = 0.0
) -> Float[Tensor, "*lead D"]:
    """Return states + update, with per-position stochastic depth (Huang et al. 2016).

    Args:
        states: the residual stream; the sum keeps its dtype.
        update: the layer's output.
        dropout: probability that a position skips the update; the others' updates are scaled by 1 / (1 − dropout).
    """
    # The scale is drawn per position and not per feature: a position either skips the layer or gets all of it, scaled
    # by 1 / (1 − p) so that the expected sum is that of evaluation. It stays float32: few 1 / (1 − p) are exact in
    # bfloat16.
    factors = (
        F.dropout(torch.ones(states.shape[:-1], device=states.device, dtype=torch.float32), dropout)
        if dropout
        else None
    )
    return residual_add(states, update, factors)
