"""Matmuls, in bfloat16 with AMX where the processor has it: `native/bfloat16_matrices.h`."""

from typing import Any

import torch
from torch.nn import functional as F

from blt.ops.native.operators import call, define, differentiate
from blt.ops.precision import autocast_dtype, has_tiles
from blt.ops.registry import operator
from blt.shapes import Float, Tensor

_SIDE = 32


def fits_tiles(*matrices: Tensor) -> bool:
    """Whether these are float32 matrices of whole tiles, on a CPU with AMX."""
    return (
        all(
            matrix.dtype == torch.float32
            and matrix.device.type == "cpu"
            and matrix.is_contiguous()
            and all(size > 0 and size % _SIDE == 0 for size in matrix.shape)
            for matrix in matrices
        )
        and has_tiles()
    )


def _weight_gradient(given: Tensor, states: Tensor) -> Tensor:
    given, states, height, width = given.contiguous(), states.contiguous(), given.shape[-1], states.shape[-1]
    of_weight = given.new_empty(height, width, dtype=torch.float32)
    call("weight_gradient", given, states, given.numel() // height, height, width, of_weight)
    return of_weight


# The weight comes twice: float32, whose gradient stays float32, and rounded, as the products take it.
_LINEAR = define(
    "linear_bfloat16(Tensor states, Tensor weight, Tensor rounded) -> Tensor",
    lambda states, _, rounded: F.linear(states.contiguous(), rounded),
    fake=lambda states, _, rounded: states.new_empty(*states.shape[:-1], rounded.shape[0]),
)
_WEIGHT_GRADIENT = define(
    "weight_gradient(Tensor given, Tensor states) -> Tensor",
    _weight_gradient,
    fake=lambda given, states: given.new_empty(given.shape[-1], states.shape[-1], dtype=torch.float32),
)


def _setup(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[2])


def _gradients(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
    states, rounded = ctx.saved_tensors
    given = given.contiguous()
    of_states = given @ rounded if ctx.needs_input_grad[0] else None
    return of_states, _WEIGHT_GRADIENT(given, states) if ctx.needs_input_grad[1] else None, None


differentiate(_LINEAR, _gradients, setup=_setup)


def _serves(states: Tensor, weight: Tensor) -> bool:  # noqa: ARG001
    return autocast_dtype() == torch.bfloat16 and torch.is_grad_enabled() and fits_tiles(weight)


def _native(states: Tensor, weight: Tensor) -> Tensor:
    return _LINEAR(states.to(torch.bfloat16).contiguous(), weight, weight.detach().to(torch.bfloat16))


@operator(native=_native, serves=_serves, is_fused_by_compiler=True)
def linear(states: Float[Tensor, "*lead I"], weight: Float[Tensor, "O I"]) -> Float[Tensor, "*lead O"]:
    """Multiply by the weight; under autocast, in its precision.

    The native kernel does not round the weight's gradient to bfloat16.
    """
    return F.linear(states, weight)
