"""Autograd functions over the fused operations of `training.cpp`.

Each equals PyTorch's result up to rounding; sums are accumulated in float32 for every input dtype. `fits` tells where
they can be used.
"""

import ctypes
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from blt.ops.native.abi import call as call_function
from blt.ops.native.abi import declare
from blt.ops.native.build import load
from blt.shapes import Float, Int, Tensor

_DTYPES = (torch.float32, torch.bfloat16)
_MULTIPLE = 16


def fits(*tensors: Tensor, widths: tuple[int, ...]) -> bool:
    """Whether the kernels take these: on a CPU, of one supported dtype, with widths in multiples of the SIMD width."""
    first = tensors[0]
    return (
        first.dtype in _DTYPES
        and all(part.device.type == "cpu" and part.dtype == first.dtype for part in tensors)
        and all(width % _MULTIPLE == 0 for width in widths)
        and library() is not None
    )


def library() -> ctypes.CDLL | None:
    """Return the functions of `training.cpp`; None where they cannot be compiled, or while PyTorch compiles."""
    return None if torch.compiler.is_compiling() else declare(load("training"))


def call(name: str, *arguments: Tensor | torch.dtype | int | float | None) -> None:
    """Call a function of `training.cpp`; see `blt.ops.native.abi.call`."""
    functions = library()
    assert functions is not None, "only called where this is known"
    call_function(functions, f"blt_{name}", arguments)


def _agree(name: str, *shapes: tuple[int, ...]) -> None:
    """Check that shapes are equal, which the kernels rely on."""
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"{name}: shapes {', '.join(str(tuple(shape)) for shape in shapes)}; expected equal shapes")


class Fused(torch.autograd.Function):
    """A function of the library with its backward."""

    @classmethod
    def of(cls, *inputs: Any) -> Tensor:
        """Apply the function; the inputs are those of `forward`."""
        found: Tensor = cls.apply(*inputs)  # type: ignore[no-untyped-call]
        return found


class FusedNorm(Fused):
    """RMSNorm with a chosen output dtype."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        """Args: states: `… D`; weight: `D`, float32; epsilon: added to the mean square; dtype: of the output."""
        states, weight, dim = states.contiguous(), weight.contiguous(), states.shape[-1]
        _agree("norm", weight.shape, (dim,))
        rows = states.numel() // dim
        out, scale = states.new_empty(states.shape, dtype=dtype), states.new_empty(rows, dtype=torch.float32)
        call("norm_forward", states.dtype, dtype, states, weight, epsilon, rows, dim, out, scale)
        ctx.save_for_backward(states, weight, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of states and weight."""
        states, weight, scale = ctx.saved_tensors
        given, dim = given.contiguous(), states.shape[-1]
        gradient, of_weight = torch.empty_like(states), torch.empty_like(weight)
        types, sizes = (states.dtype, given.dtype), (states.numel() // dim, dim)
        call("norm_backward", *types, given, states, weight, scale, *sizes, gradient, of_weight)
        return gradient, of_weight, None, None


class FusedSwiGLU(Fused):
    """silu(gate) × up."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """Args: gate, up: `… D`."""
        _agree("swiglu", gate.shape, up.shape)
        gate, up = gate.contiguous(), up.contiguous()
        out = torch.empty_like(gate)
        call("swiglu_forward", gate.dtype, gate, up, gate.numel(), out)
        ctx.save_for_backward(gate, up)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of both."""
        gate, up = ctx.saved_tensors
        of_gate, of_up = torch.empty_like(gate), torch.empty_like(up)
        call("swiglu_backward", gate.dtype, given.contiguous(), gate, up, gate.numel(), of_gate, of_up)
        return of_gate, of_up


class FusedSum(Fused):
    """Residual addition to float32 states, with a scale per position."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, update: Tensor, factors: Tensor | None) -> Tensor:
        """Args: states: `… D`, float32; update: `… D`; factors: `…`, float32, or None for 1."""
        _agree("sum", states.shape, update.shape)
        if factors is not None:
            _agree("sum", states.shape[:-1], factors.shape)
            factors = factors.contiguous()
        states, update = states.contiguous(), update.contiguous()
        out, dim = torch.empty_like(states), states.shape[-1]
        ctx.dtype, ctx.sizes = update.dtype, (states.numel() // dim, dim)
        ctx.save_for_backward(factors)
        call("sum_forward", update.dtype, states, update, factors, *ctx.sizes, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of states and update."""
        given, (factors,) = given.contiguous(), ctx.saved_tensors
        of_update = torch.empty_like(given, dtype=ctx.dtype)
        call("sum_backward", ctx.dtype, given, factors, *ctx.sizes, of_update)
        return given, of_update, None


class FusedRotation(Fused):
    """RoPE on halves of each head."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Args: states: `B T H F`; cos, sin: `B T 1 F/2`, float32."""
        batch, length, _, width = states.shape
        cos, sin = (part.expand(batch, length, 1, width // 2).contiguous() for part in (cos, sin))
        ctx.save_for_backward(cos, sin)
        return _rotated(states, cos, sin, sign=1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        """Rotate the gradient by −θ."""
        cos, sin = ctx.saved_tensors
        return _rotated(given, cos, sin, sign=-1.0), None, None


def _rotated(states: Tensor, cos: Tensor, sin: Tensor, *, sign: float) -> Tensor:
    states = states.contiguous()
    out, (batch, length, num_heads, width) = torch.empty_like(states), states.shape
    call("rotate", states.dtype, states, cos, sin, batch * length, num_heads, width // 2, sign, out)
    return out


class FusedAttention(Fused):
    """Attention in which position t attends to positions first[t] … t; first must not decrease along a row."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, first: Int[Tensor, "B T"]) -> Tensor:
        """Args: queries, keys, values: `B T H E`; first: the first position that each attends to."""
        _agree("attend", queries.shape, keys.shape, values.shape)
        _agree("attend", queries.shape[:2], first.shape)
        queries, keys, values, first = (part.contiguous() for part in (queries, keys, values, first))
        out, (batch, length, num_heads, _) = torch.empty_like(queries), queries.shape
        totals = queries.new_empty(batch, num_heads, length, dtype=torch.float32)
        call("attend_forward", queries.dtype, queries, keys, values, first, *queries.shape, out, totals)
        ctx.save_for_backward(queries, keys, values, first, out, totals)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of queries, keys and values."""
        queries, keys, values, first, out, totals = ctx.saved_tensors
        found = torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values)
        tensors = (given.contiguous(), queries, keys, values, out, totals, first)
        call("attend_backward", queries.dtype, *tensors, *queries.shape, *found)
        return *found, None


class FusedCrossAttention(Fused):
    """Cross-attention between positions and slots, in either direction; the positions of a slot are contiguous."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, slots: Int[Tensor, "B T"]) -> Tensor:
        """Args: queries: `B T H E` with keys and values `B P K H E`, or the other way round; scaled; slots: P: none."""
        queries, keys, values, slots = (part.contiguous() for part in (queries, keys, values, slots))
        ctx.name, of_slots, of_bytes = ("pool", queries, keys) if queries.dim() == 5 else ("read", keys, queries)
        _agree(ctx.name, keys.shape, values.shape)
        _agree(ctx.name, of_bytes.shape[:2], slots.shape)
        _agree(ctx.name, (*of_bytes.shape[:1], *of_bytes.shape[2:]), (*of_slots.shape[:1], *of_slots.shape[3:]))
        ctx.sizes = (*slots.shape, *of_slots.shape[1:])  # rows, length, slots, vectors, heads, width
        out = torch.zeros_like(queries)
        call(f"{ctx.name}_forward", queries.dtype, queries, keys, values, slots, *ctx.sizes, out)
        ctx.save_for_backward(queries, keys, values, slots)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of queries, keys and values."""
        queries, keys, values, slots = ctx.saved_tensors
        found = tuple(torch.zeros_like(part) for part in (queries, keys, values))
        tensors = (given.contiguous(), queries, keys, values, slots)
        call(f"{ctx.name}_backward", queries.dtype, *tensors, *ctx.sizes, *found)
        return *found, None


class FusedMaximum(Fused):
    """Max pooling over the positions of each slot, per feature; 0 for empty slots; ties go to the first."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, slots: Tensor, num_slots: int) -> Tensor:
        """Args: states: `B T D`; slots: `B T`, contiguous; num_slots means no slot."""
        _agree("largest", states.shape[:2], slots.shape)
        states, slots = states.contiguous(), slots.contiguous()
        batch, length, dim = states.shape
        out = states.new_zeros(batch, num_slots, dim)
        places = slots.new_full((batch, num_slots, dim), -1)
        call("largest_forward", states.dtype, states, slots, batch, length, num_slots, dim, out, places)
        ctx.save_for_backward(places)
        ctx.shape, ctx.sizes = states.shape, (batch, length, num_slots, dim)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        """Route each gradient to the position of the maximum."""
        (places,) = ctx.saved_tensors
        gradient, given = given.new_zeros(ctx.shape), given.contiguous()
        call("largest_backward", given.dtype, given, places, *ctx.sizes, gradient)
        return gradient, None, None


class FusedBag(Fused):
    """Sum of table rows per position (`embedding_bag`)."""

    @staticmethod
    def forward(ctx: Any, indices: Int[Tensor, "B N"], table: Float[Tensor, "R D"]) -> Float[Tensor, "B D"]:
        """Args: indices: of rows; table: float32."""
        ctx.save_for_backward(indices)
        ctx.shape = table.shape
        return torch.nn.functional.embedding_bag(indices, table.detach(), mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[None, Tensor]:
        """Add each position's gradient to its rows."""
        (indices,) = ctx.saved_tensors
        gradient, given = given.new_zeros(ctx.shape, dtype=torch.float32), given.float().contiguous()
        call("scatter_rows", given, indices.contiguous(), *indices.shape, *ctx.shape, gradient)
        return None, gradient
