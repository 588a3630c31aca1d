"""bfloat16 matmuls with AMX, where the processor has it: `bfloat16_matrices.h`."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from blt.ops.native.fused import Fused, call, library
from blt.shapes import Float, Tensor

_SIDE = 32
_BY_TILES = 2


def multiplies(*matrices: Tensor) -> bool:
    """Whether these are multiplied in bfloat16 here: float32 matrices of whole tiles, on a CPU with AMX."""
    if not all(
        matrix.dtype == torch.float32
        and matrix.device.type == "cpu"
        and matrix.is_contiguous()
        and all(size > 0 and size % _SIDE == 0 for size in matrix.shape)
        for matrix in matrices
    ):
        return False
    functions = library()
    return functions is not None and functions.blt_bfloat16_products() == _BY_TILES


class FusedLinear(Fused):
    """A bfloat16 matmul with a float32 weight, whose gradient stays float32."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:
        """Args: states: `… I`; weight: `O I`, float32; both multiples of 32."""
        rounded, matrix = states.to(torch.bfloat16).contiguous(), weight.to(torch.bfloat16)
        ctx.save_for_backward(rounded, matrix)
        ctx.dtype = states.dtype
        return F.linear(rounded, matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of states and weight."""
        states, matrix = ctx.saved_tensors
        given, (height, width) = given.contiguous(), matrix.shape
        of_states = (given @ matrix).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = given.new_empty(height, width, dtype=torch.float32)
            call("weight_gradient", given, states, given.numel() // height, height, width, of_weight)
        return of_states, of_weight


def muon_step(
    weight: Float[Tensor, "R C"],
    gradient: Float[Tensor, "R C"],
    average: Float[Tensor, "R C"],
    *,
    momentum: float,
    rate: float,
    kept: float,
    coefficients: Float[Tensor, "N 3"],
) -> None:
    """Run a Muon step in place: update the momentum, orthogonalise it, and update the weight.

    Args:
        weight: becomes `kept` × weight − `rate` × the orthogonalised update.
        gradient: the gradient of this optimiser step.
        average: momentum buffer, the running average of the gradients.
        momentum: decay of the average, and its share of the update (Nesterov).
        rate: learning rate.
        kept: factor that weight decay leaves.
        coefficients: of each iteration's odd polynomial (Newton-Schulz).
    """
    if not weight.shape == gradient.shape == average.shape:
        shapes = ", ".join(str(tuple(part.shape)) for part in (weight, gradient, average))
        raise ValueError(f"muon_step: shapes {shapes}; expected equal shapes")
    sizes = (*weight.shape, momentum, rate, kept)
    call("muon_step", weight, gradient, average, *sizes, coefficients, len(coefficients))
