"""The residual addition of a layer."""

from typing import Any

import torch

from blt.ops.native.operators import call, check_equal, define, differentiate, serves
from blt.ops.registry import operator
from blt.shapes import Float, Tensor


def _forward(states: Tensor, update: Tensor, factors: Tensor | None) -> Tensor:
    check_equal("residual_add", states.shape, update.shape)
    if factors is not None:
        check_equal("residual_add", states.shape[:-1], factors.shape)
        factors = factors.contiguous()
    states, update = states.contiguous(), update.contiguous()
    out, dim = torch.empty_like(states), states.shape[-1]
    call("sum_forward", update.dtype, states, update, factors, states.numel() // dim, dim, out)
    return out


def _backward(given: Tensor, factors: Tensor | None, dtype: torch.dtype) -> Tensor:
    given, dim = given.contiguous(), given.shape[-1]
    factors = None if factors is None else factors.contiguous()
    of_update = torch.empty_like(given, dtype=dtype)
    call("sum_backward", dtype, given, factors, given.numel() // dim, dim, of_update)
    return of_update


_ADD = define(
    "residual_add(Tensor states, Tensor update, Tensor? factors) -> Tensor",
    _forward,
    fake=lambda states, *_: states.new_empty(states.shape),
)
_ADD_BACKWARD = define(
    "residual_add_backward(Tensor given, Tensor? factors, ScalarType dtype) -> Tensor",
    _backward,
    fake=lambda given, _, dtype: given.new_empty(given.shape, dtype=dtype),
)


def _setup(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
    ctx.dtype = inputs[1].dtype
    ctx.save_for_backward(inputs[2])


def _gradients(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
    return given, _ADD_BACKWARD(given, *ctx.saved_tensors, ctx.dtype), None


differentiate(_ADD, _gradients, setup=_setup)


def _serves(states: Tensor, update: Tensor, factors: Tensor | None) -> bool:  # noqa: ARG001
    return states.dtype == torch.float32 and serves(states, widths=(states.shape[-1],)) and serves(update)


@operator(native=_ADD, serves=_serves, is_fused_by_compiler=True)
def residual_add(
    states: Float[Tensor, "*lead D"], update: Float[Tensor, "*lead D"], factors: Float[Tensor, "*lead"] | None
) -> Float[Tensor, "*lead D"]:
    """Return states + factors · update, in the dtype of the states; without factors, they are 1."""
    return states + (update if factors is None else (update * factors[..., None]).to(states.dtype))
