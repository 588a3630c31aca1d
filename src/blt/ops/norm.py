"""RMSNorm (Zhang and Sennrich 2019)."""

from typing import Any

import torch
from torch.nn import functional as F

from blt.ops.native.operators import DTYPES, call, check_equal, define, differentiate, serves
from blt.ops.precision import autocast_dtype
from blt.ops.registry import operator
from blt.shapes import Float, Tensor


def _forward(states: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    states, weight, dim = states.contiguous(), weight.contiguous(), states.shape[-1]
    check_equal("rms_norm", weight.shape, (dim,))
    rows = states.numel() // dim
    out, scale = states.new_empty(states.shape, dtype=dtype), states.new_empty(rows, dtype=torch.float32)
    call("norm_forward", states.dtype, dtype, states, weight, epsilon, rows, dim, out, scale)
    return out, scale


def _forward_fake(states: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    rows = states.numel() // states.shape[-1]
    return states.new_empty(states.shape, dtype=dtype), states.new_empty(rows, dtype=torch.float32)


def _backward(given: Tensor, states: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    given, states, weight, dim = given.contiguous(), states.contiguous(), weight.contiguous(), states.shape[-1]
    gradient, of_weight = torch.empty_like(states), torch.empty_like(weight)
    types, sizes = (states.dtype, given.dtype), (states.numel() // dim, dim)
    call("norm_backward", *types, given, states, weight, scale, *sizes, gradient, of_weight)
    return gradient, of_weight


def _backward_fake(given: Tensor, states: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return states.new_empty(states.shape), weight.new_empty(weight.shape)


_NORM = define(
    "rms_norm(Tensor states, Tensor weight, float epsilon, ScalarType dtype) -> (Tensor, Tensor)",
    _forward,
    fake=_forward_fake,
)
_NORM_BACKWARD = define(
    "rms_norm_backward(Tensor given, Tensor states, Tensor weight, Tensor scale) -> (Tensor, Tensor)",
    _backward,
    fake=_backward_fake,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:2], output[1])


def _gradients(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
    return (*_NORM_BACKWARD(given, *ctx.saved_tensors), None, None)


differentiate(_NORM, _gradients, setup=_setup)


def _serves(states: Tensor, weight: Tensor, *, epsilon: float) -> bool:  # noqa: ARG001
    is_float32 = weight.dtype == torch.float32 and autocast_dtype() in DTYPES
    return is_float32 and serves(states, widths=(weight.numel(),))


def _native(states: Tensor, weight: Tensor, *, epsilon: float) -> Tensor:
    return _NORM(states, weight, epsilon, autocast_dtype())[0]


@operator(native=_native, serves=_serves, is_fused_by_compiler=True)
def rms_norm(
    states: Float[Tensor, "*lead D"], weight: Float[Tensor, " D"], *, epsilon: float
) -> Float[Tensor, "*lead D"]:
    """Normalise each state to mean square 1 and apply the weight, in the weight's precision even under autocast.

    The native kernel returns the dtype of the matmuls that follow: autocast's.
    """
    return F.rms_norm(states.to(weight.dtype), weight.shape, weight, epsilon)
