"""What a layer adds to the states that it read."""

import torch
from torch.nn import functional as F

from blt.nn.native.fused import FusedSum, fits
from blt.shapes import Float, Tensor


def add(
    states: Float[Tensor, "*lead D"], update: Float[Tensor, "*lead D"], *, dropout: float = 0.0
) -> Float[Tensor, "*lead D"]:
    """Add up; some positions, at random, go without the update (stochastic depth: Huang et al. 2016), one by one.

    Args:
        states: what was read; its precision stays.
        update: what the layer says of it.
        dropout: share of the positions that go without; the updates of the others grow by as much in all.
    """
    factors = (
        F.dropout(torch.ones(states.shape[:-1], device=states.device, dtype=torch.float32), dropout)
        if dropout
        else None
    )
    if states.dtype == torch.float32 and fits(states, widths=(states.shape[-1],)) and fits(update, widths=()):
        return FusedSum.of(states, update, factors)
    return states + (update if factors is None else (update * factors[..., None]).to(states.dtype))
