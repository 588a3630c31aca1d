"""Rotary position embedding (RoPE; Su et al. 2021, arXiv 2104.09864), on halves of each head."""

from typing import NamedTuple

import torch

from blt.ops.native.fused import FusedRotation, fits
from blt.shapes import Float, Int, Tensor


class RotaryTable(NamedTuple):
    """Cosines and sines for the positions of a batch, computed once and used by every layer."""

    cos: Float[Tensor, "B T 1 E"]
    sin: Float[Tensor, "B T 1 E"]


def rotary_table(positions: Int[Tensor, "B T"], *, head_dim: int, theta: float) -> RotaryTable:
    """Return the RoPE table of each position, in float32.

    Args:
        positions: counted from the start of each segment.
        head_dim: width of a head; even.
        theta: the base; the wavelengths run from 2π to 2π·theta positions.
    """
    frequencies = rotary_frequencies(head_dim=head_dim, theta=theta, device=positions.device)
    angles = positions[:, :, None, None].float() * frequencies  # B T 1 E, E = half a head
    return RotaryTable(angles.cos(), angles.sin())


def rotary_frequencies(*, head_dim: int, theta: float, device: torch.device) -> Float[Tensor, " E"]:
    """Return the angle per position of each pair of a head, in float32.

    1 / θ^x and θ^−x differ in the last bit, which positions in the thousands amplify up to the logits. The published
    code and transformers use the first form, so it is used here.
    """
    exponents = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim
    return 1.0 / theta**exponents


def rotate(states: Float[Tensor, "B T H F"], table: RotaryTable) -> Float[Tensor, "B T H F"]:
    """Rotate each pair (i, i + F/2) of a head by its position's angle."""
    if fits(states, widths=(states.shape[-1] // 2,)) and table.cos.dtype == torch.float32:
        return FusedRotation.of(states, table.cos, table.sin)
    cos, sin = (part.to(states.dtype) for part in table)
    first, second = states.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
