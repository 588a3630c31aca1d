"""SwiGLU (Shazeer 2020, arXiv 2002.05202)."""

from typing import Any

import torch
from torch.nn import functional as F

from blt.ops.native.operators import call, check_equal, define, differentiate, serves
from blt.ops.registry import operator
from blt.shapes import Float, Tensor


def _forward(gate: Tensor, up: Tensor) -> Tensor:
    check_equal("swiglu", gate.shape, up.shape)
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    call("swiglu_forward", gate.dtype, gate, up, gate.numel(), out)
    return out


def _backward(given: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    given, gate, up = given.contiguous(), gate.contiguous(), up.contiguous()
    of_gate, of_up = torch.empty_like(gate), torch.empty_like(up)
    call("swiglu_backward", gate.dtype, given, gate, up, gate.numel(), of_gate, of_up)
    return of_gate, of_up


_SWIGLU = define("swiglu(Tensor gate, Tensor up) -> Tensor", _forward, fake=lambda gate, _: gate.new_empty(gate.shape))
_SWIGLU_BACKWARD = define(
    "swiglu_backward(Tensor given, Tensor gate, Tensor up) -> (Tensor, Tensor)",
    _backward,
    fake=lambda _, gate, up: (gate.new_empty(gate.shape), up.new_empty(up.shape)),
)


def _setup(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor]:
    return _SWIGLU_BACKWARD(given, *ctx.saved_tensors)


differentiate(_SWIGLU, _gradients, setup=_setup)


def _serves(gate: Tensor, up: Tensor) -> bool:
    return serves(gate, up, widths=(gate.shape[-1],))


@operator(native=_SWIGLU, serves=_serves, is_fused_by_compiler=True)
def swiglu(gate: Float[Tensor, "*lead D"], up: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
    """Return silu(gate) × up."""
    return F.silu(gate) * up
