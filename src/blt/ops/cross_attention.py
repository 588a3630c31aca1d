"""Cross-attention between positions and the slots that they belong to, or read: linear in the number of positions.

The positions of a slot are contiguous; slot P, one past the last, is a sentinel for "no slot".
"""

from typing import Any

import torch

from blt.ops.native.operators import call, check_equal, define, differentiate, serves
from blt.ops.registry import operator
from blt.ops.segments import segment_softmax, segment_sum, take
from blt.shapes import Float, Int, Tensor


def _sizes(name: str, queries: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> tuple[int, ...]:
    """Check shapes; return rows, length, slots, vectors, heads, width."""
    of_slots, of_positions = (queries, keys) if queries.dim() == 5 else (keys, queries)
    check_equal(name, keys.shape, values.shape)
    check_equal(name, of_positions.shape[:2], slots.shape)
    check_equal(name, (*of_positions.shape[:1], *of_positions.shape[2:]), (*of_slots.shape[:1], *of_slots.shape[3:]))
    return (*slots.shape, *of_slots.shape[1:])


def _define(name: str, native: str) -> torch._ops.OpOverload:
    """Declare one direction, and its backward."""

    def forward(queries: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> Tensor:
        queries, keys, values, slots = (part.contiguous() for part in (queries, keys, values, slots))
        sizes, out = _sizes(name, queries, keys, values, slots), torch.zeros_like(queries)
        call(f"{native}_forward", queries.dtype, queries, keys, values, slots, *sizes, out)
        return out

    def backward(
        given: Tensor, queries: Tensor, keys: Tensor, values: Tensor, slots: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        given, queries, keys, values, slots = (part.contiguous() for part in (given, queries, keys, values, slots))
        sizes = _sizes(name, queries, keys, values, slots)
        found = torch.zeros_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
        call(f"{native}_backward", queries.dtype, given, queries, keys, values, slots, *sizes, *found)
        return found

    found = define(
        f"{name}(Tensor queries, Tensor keys, Tensor values, Tensor slots) -> Tensor",
        forward,
        fake=lambda queries, *_: queries.new_empty(queries.shape),
    )
    backward_op = define(
        f"{name}_backward(Tensor given, Tensor queries, Tensor keys, Tensor values, Tensor slots) "
        "-> (Tensor, Tensor, Tensor)",
        backward,
        fake=lambda _, *inputs: tuple(part.new_empty(part.shape) for part in inputs[:3]),
    )

    def setup(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    def gradients(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        return (*backward_op(given, *ctx.saved_tensors), None)

    differentiate(found, gradients, setup=setup)
    return found


def _serves(queries: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> bool:  # noqa: ARG001
    return serves(queries, keys, values, widths=(queries.shape[-1],))


@operator(native=_define("attend_within_slots", "pool"), serves=_serves)
def attend_within_slots(
    queries: Float[Tensor, "B P K H E"],
    keys: Float[Tensor, "B T H E"],
    values: Float[Tensor, "B T H E"],
    slots: Int[Tensor, "B T"],
) -> Float[Tensor, "B P K H E"]:
    """Attend from each slot's k queries, already scaled, to the positions of that slot; zeros for empty slots."""
    num_slots = queries.shape[1]
    own = take(queries, slots)  # B T K H E: the queries of each position's own slot
    scores = (own * keys[:, :, None]).sum(-1).float()  # B T K H
    weights = segment_softmax(scores, slots, num_slots=num_slots).to(values.dtype)
    return segment_sum(weights[..., None] * values[:, :, None], slots, num_slots=num_slots)


@operator(native=_define("attend_to_slots", "read"), serves=_serves)
def attend_to_slots(
    queries: Float[Tensor, "B T H E"],
    keys: Float[Tensor, "B P K H E"],
    values: Float[Tensor, "B P K H E"],
    slots: Int[Tensor, "B T"],
) -> Float[Tensor, "B T H E"]:
    """Attend from each position's query, already scaled, to the k vectors of its slot; zeros for the sentinel P."""
    return attend_to_vectors(queries, take(keys, slots), take(values, slots))


def attend_to_vectors(
    queries: Float[Tensor, "B T H E"], keys: Float[Tensor, "B T K H E"], values: Float[Tensor, "B T K H E"]
) -> Float[Tensor, "B T H E"]:
    """Attend from each position's query, already scaled, to k vectors of its own."""
    scores = (queries[:, :, None] * keys).sum(-1)  # B T K H
    weights = torch.softmax(scores.float(), dim=2).to(values.dtype)
    return (weights[..., None] * values).sum(2)
