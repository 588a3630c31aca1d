"""Segment reductions over contiguous positions, in time and memory linear in the number of positions.

The positions of a slot are contiguous; index P, one past the last slot, is a sentinel for "no slot".
"""

from math import prod
from typing import Any

import torch

from blt.ops.native.operators import call, check_equal, define, differentiate, serves
from blt.ops.registry import operator
from blt.shapes import Bool, Float, Int, Tensor


def take(rows: Float[Tensor, "B P *rest"], slots: Int[Tensor, "B T"]) -> Float[Tensor, "B T *rest"]:
    """Gather the row of each position's slot; zeros for the sentinel P."""
    batch, num_slots = rows.shape[:2]
    flat = rows.reshape(batch, num_slots, prod(rows.shape[2:]))
    padded = torch.cat([flat, flat.new_zeros(batch, 1, flat.shape[2])], dim=1)
    taken = padded.gather(1, slots[:, :, None].expand(-1, -1, flat.shape[2]))
    return taken.view(batch, slots.shape[1], *rows.shape[2:])


def segment_sum(
    states: Float[Tensor, "B T *rest"], slots: Int[Tensor, "B T"], *, num_slots: int
) -> Float[Tensor, "B P *rest"]:
    """Sum the positions of each slot; positions with the sentinel P are left out."""
    flat = states.reshape(*states.shape[:2], prod(states.shape[2:]))
    index = slots[:, :, None].expand_as(flat)
    summed = flat.new_zeros(flat.shape[0], num_slots + 1, flat.shape[2]).scatter_add(1, index, flat)
    return summed[:, :num_slots].reshape(states.shape[0], num_slots, *states.shape[2:])


def _max_kernel(states: Tensor, slots: Tensor, num_slots: int) -> tuple[Tensor, Tensor]:
    check_equal("segment_max", states.shape[:2], slots.shape)
    states, slots = states.contiguous(), slots.contiguous()
    batch, length, dim = states.shape
    out = states.new_zeros(batch, num_slots, dim)
    places = states.new_full((batch, num_slots, dim), -1, dtype=torch.int64)
    call("largest_forward", states.dtype, states, slots, batch, length, num_slots, dim, out, places)
    return out, places


def _max_fake(states: Tensor, slots: Tensor, num_slots: int) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    shape = (states.shape[0], num_slots, states.shape[2])
    return states.new_empty(shape), states.new_empty(shape, dtype=torch.int64)


def _max_backward(given: Tensor, places: Tensor, length: int) -> Tensor:
    given, places, (batch, num_slots, dim) = given.contiguous(), places.contiguous(), given.shape
    gradient = given.new_zeros(batch, length, dim)
    call("largest_backward", given.dtype, given, places, batch, length, num_slots, dim, gradient)
    return gradient


_MAX = define(
    "segment_max(Tensor states, Tensor slots, SymInt num_slots) -> (Tensor, Tensor)", _max_kernel, fake=_max_fake
)
_MAX_BACKWARD = define(
    "segment_max_backward(Tensor given, Tensor places, SymInt length) -> Tensor",
    _max_backward,
    fake=lambda given, _, length: given.new_empty(given.shape[0], length, given.shape[2]),
)


def _max_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.length = inputs[0].shape[1]
    ctx.save_for_backward(output[1])


def _max_gradients(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
    return _MAX_BACKWARD(given, *ctx.saved_tensors, ctx.length), None, None


differentiate(_MAX, _max_gradients, setup=_max_setup)


def _max_serves(states: Tensor, slots: Tensor, *, num_slots: int) -> bool:  # noqa: ARG001
    return serves(states)


def _max_native(states: Tensor, slots: Tensor, *, num_slots: int) -> Tensor:
    found: Tensor = _MAX(states.reshape(*states.shape[:2], prod(states.shape[2:])), slots, num_slots)[0]
    return found.view(len(states), num_slots, *states.shape[2:])


@operator(native=_max_native, serves=_max_serves)
def segment_max(
    states: Float[Tensor, "B T *rest"], slots: Int[Tensor, "B T"], *, num_slots: int
) -> Float[Tensor, "B P *rest"]:
    """Return the maximum over each slot's positions, per feature; 0 for empty slots.

    The native kernel gives the gradient to the first of equal positions, the reference divides it among them.
    """
    flat = states.reshape(*states.shape[:2], prod(states.shape[2:]))
    index = slots[:, :, None].expand_as(flat)
    start = flat.new_zeros(flat.shape[0], num_slots + 1, flat.shape[2])
    largest = start.scatter_reduce(1, index, flat, reduce="amax", include_self=False)
    return largest[:, :num_slots].reshape(states.shape[0], num_slots, *states.shape[2:])


def segment_softmax(
    scores: Float[Tensor, "B T *rest"], slots: Int[Tensor, "B T"], *, num_slots: int
) -> Float[Tensor, "B T *rest"]:
    """Softmax over the positions of each slot; 0 for positions with the sentinel P."""
    largest = take(segment_max(scores.detach(), slots, num_slots=num_slots), slots)
    inside = (slots < num_slots).view(*slots.shape, *(1,) * (scores.dim() - 2))
    weights = torch.where(inside, scores - largest, float("-inf")).exp()
    total = take(segment_sum(weights, slots, num_slots=num_slots), slots)
    return weights / total.clamp_min(torch.finfo(total.dtype).tiny)


def run_positions(segments: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Return each position's index within its run of equal segment numbers, from 0."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return index - torch.where(starts, index, 0).cummax(1).values


def in_last_segment(segments: Int[Tensor, "B T"], *, lengths: Int[Tensor, " B"]) -> Bool[Tensor, "B T"]:
    """Return which of the first `lengths[b]` positions of each row b are in the same segment as the last of them."""
    times = torch.arange(segments.shape[1], device=segments.device)
    return (times < lengths[:, None]) & (segments == segments.gather(1, lengths[:, None] - 1))
