"""Rotary position embedding (RoPE; Su et al. 2021, arXiv 2104.09864), on halves of each head."""

from typing import Any, NamedTuple

import torch

from blt.ops.native.operators import call, define, differentiate, serves
from blt.ops.registry import operator
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
    return rotary_table_of(positions, rotary_frequencies(head_dim=head_dim, theta=theta, device=positions.device))


def rotary_table_of(positions: Int[Tensor, "B T"], frequencies: Float[Tensor, " E"]) -> RotaryTable:
    """Return the RoPE table of each position, from `rotary_frequencies` that are kept."""
    angles = positions[:, :, None, None].float() * frequencies  # B T 1 E, E = half a head
    return RotaryTable(angles.cos(), angles.sin())


def rotary_frequencies(*, head_dim: int, theta: float, device: torch.device) -> Float[Tensor, " E"]:
    """Return the angle per position of each pair of a head, in float32.

    1 / θ^x and θ^−x differ in the last bit, which positions in the thousands amplify up to the logits. The published
    code and transformers use the first form, so it is used here.
    """
    exponents = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim
    return 1.0 / theta**exponents


def _kernel(states: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    batch, length, num_heads, width = states.shape
    cos, sin = (part.expand(batch, length, 1, width // 2).contiguous() for part in (cos, sin))
    states = states.contiguous()
    out = torch.empty_like(states)
    call("rotate", states.dtype, states, cos, sin, batch * length, num_heads, width // 2, sign, out)
    return out


_ROTATE = define(
    "rotate(Tensor states, Tensor cos, Tensor sin, float sign) -> Tensor",
    _kernel,
    fake=lambda states, *_: states.new_empty(states.shape),
)


def _setup(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
    ctx.sign = inputs[3]
    ctx.save_for_backward(*inputs[1:3])


def _gradients(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
    return _ROTATE(given, *ctx.saved_tensors, -ctx.sign), None, None, None  # its inverse rotates by −θ


differentiate(_ROTATE, _gradients, setup=_setup)


def _serves(states: Tensor, table: RotaryTable) -> bool:
    return table.cos.dtype == torch.float32 and serves(states, widths=(states.shape[-1] // 2,))


def _native(states: Tensor, table: RotaryTable) -> Tensor:
    return _ROTATE(states, *table, 1.0)


@operator(native=_native, serves=_serves, is_fused_by_compiler=True)
def rotate(states: Float[Tensor, "B T H F"], table: RotaryTable) -> Float[Tensor, "B T H F"]:
    """Rotate each pair (i, i + F/2) of a head by its position's angle."""
    cos, sin = (part.to(states.dtype) for part in table)
    first, second = states.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
