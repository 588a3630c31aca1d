"""Segment reductions over contiguous positions, in time and memory linear in the number of positions.

The positions of a slot are contiguous; index P, one past the last slot, is a sentinel for "no slot".
"""

import torch

from blt.ops.native.fused import FusedBag, FusedCrossAttention, FusedMaximum, fits
from blt.shapes import Bool, Float, Int, Tensor


def take(rows: Float[Tensor, "B P *rest"], slots: Int[Tensor, "B T"]) -> Float[Tensor, "B T *rest"]:
    """Gather the row of each position's slot; zeros for the sentinel P."""
    batch, num_slots = rows.shape[:2]
    flat = rows.reshape(batch, num_slots, -1)
    padded = torch.cat([flat, flat.new_zeros(batch, 1, flat.shape[2])], dim=1)
    taken = padded.gather(1, slots[:, :, None].expand(-1, -1, flat.shape[2]))
    return taken.view(batch, slots.shape[1], *rows.shape[2:])


def segment_sum(
    states: Float[Tensor, "B T *rest"], slots: Int[Tensor, "B T"], *, num_slots: int
) -> Float[Tensor, "B P *rest"]:
    """Sum the positions of each slot; positions with the sentinel P are left out."""
    flat = states.reshape(*states.shape[:2], -1)
    index = slots[:, :, None].expand_as(flat)
    summed = flat.new_zeros(flat.shape[0], num_slots + 1, flat.shape[2]).scatter_add(1, index, flat)
    return summed[:, :num_slots].reshape(states.shape[0], num_slots, *states.shape[2:])


def segment_max(
    states: Float[Tensor, "B T *rest"], slots: Int[Tensor, "B T"], *, num_slots: int
) -> Float[Tensor, "B P *rest"]:
    """Return the maximum over each slot's positions, per feature; 0 for empty slots."""
    flat = states.reshape(*states.shape[:2], -1)
    if fits(flat, widths=()):
        return FusedMaximum.of(flat, slots, num_slots).view(len(states), num_slots, *states.shape[2:])
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


def attend_within_slots(
    queries: Float[Tensor, "B P K H E"],
    keys: Float[Tensor, "B T H E"],
    values: Float[Tensor, "B T H E"],
    slots: Int[Tensor, "B T"],
) -> Float[Tensor, "B P K H E"]:
    """Attend from each slot's k queries, already scaled, to the positions of that slot; zeros for empty slots."""
    num_slots = queries.shape[1]
    if fits(queries, keys, values, widths=(queries.shape[-1],)):
        return FusedCrossAttention.of(queries, keys, values, slots)
    own = take(queries, slots)  # B T K H E: the queries of each position's own slot
    scores = (own * keys[:, :, None]).sum(-1).float()  # B T K H
    weights = segment_softmax(scores, slots, num_slots=num_slots).to(values.dtype)
    return segment_sum(weights[..., None] * values[:, :, None], slots, num_slots=num_slots)


def attend_to_slots(
    queries: Float[Tensor, "B T H E"],
    keys: Float[Tensor, "B P K H E"],
    values: Float[Tensor, "B P K H E"],
    slots: Int[Tensor, "B T"],
) -> Float[Tensor, "B T H E"]:
    """Attend from each position's query, already scaled, to the k vectors of its slot; zeros for the sentinel P."""
    if fits(queries, keys, values, widths=(queries.shape[-1],)):
        return FusedCrossAttention.of(queries, keys, values, slots)
    return attend_to_vectors(queries, take(keys, slots), take(values, slots))


def attend_to_vectors(
    queries: Float[Tensor, "B T H E"], keys: Float[Tensor, "B T K H E"], values: Float[Tensor, "B T K H E"]
) -> Float[Tensor, "B T H E"]:
    """Attend from each position's query, already scaled, to k vectors of its own."""
    scores = (queries[:, :, None] * keys).sum(-1)  # B T K H
    weights = torch.softmax(scores.float(), dim=2).to(values.dtype)
    return (weights[..., None] * values).sum(2)


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


def embedding_bag(
    indices: Int[Tensor, "Z N"], table: Float[Tensor, "R D"], *, sparse: bool = False
) -> Float[Tensor, "Z D"]:
    """Sum table rows per position; with `sparse`, the table's gradient holds only the rows that were read."""
    if sparse:
        return torch.nn.functional.embedding_bag(indices, table, mode="sum", sparse=True)
    if table.dtype == torch.float32 and fits(table, widths=(table.shape[1],)):
        return FusedBag.of(indices, table)
    return torch.nn.functional.embedding_bag(indices, table, mode="sum")
