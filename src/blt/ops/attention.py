"""Self-attention to runs: each position attends to a contiguous run of positions that ends with itself."""

from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from blt.ops.native.operators import call, check_equal, define, differentiate, is_available, serves
from blt.ops.registry import operator
from blt.ops.segments import run_positions
from blt.shapes import Bool, Float, Int, Tensor

Heads = Float[Tensor, "B T H E"]
_MASK_BYTES = 6
"""Of a pair of positions in a mask: as booleans, in the making, and as float32."""


class Runs:
    """Where the run of each position begins: with its segment, and at most `window` positions back, itself included.

    The native kernel computes just the runs. Masks are made where the reference needs them, once for all layers.
    """

    # Masks are kept by hand: `functools.cached_property` takes a lock before Python 3.12, which torch.compile refuses.

    def __init__(self, segments: Int[Tensor, "B T"], *, window: int | None = None) -> None:
        """Args: segments: segment number of each position; window: longest run; None for no limit."""
        index, back = torch.arange(segments.shape[1], device=segments.device), run_positions(segments)
        self.first: Int[Tensor, "B T"] = index - (back if window is None else back.clamp_max(window - 1))
        self.blocks = None if window is None else Blocks(self.first, window=window)
        self._mask: Tensor | None = None

    @property
    def mask(self) -> Bool[Tensor, "B 1 T T"]:
        """The attention mask over whole rows."""
        if self._mask is None:
            index = torch.arange(self.first.shape[1], device=self.first.device)
            self._mask = ((index >= self.first[:, :, None]) & (index <= index[:, None]))[:, None]
        return self._mask


class Blocks:
    """Rows cut into blocks of `window` positions, so that no T × T mask is made.

    A run reaches at most into the block before its own: the queries of a block attend to the keys of these two.
    """

    def __init__(self, first: Int[Tensor, "B T"], *, window: int) -> None:
        self.first, self.length = first, first.shape[1]
        self.size = min(window, self.length)
        self.count = -(-self.length // self.size)
        self.padding = self.count * self.size - self.length
        self._mask: Tensor | None = None

    @property
    def mask(self) -> Bool[Tensor, "Z 1 W X"]:
        """The attention mask of each block: B·N × 1 × W × 2W, or × W where one block holds the row."""
        if self._mask is None:
            self._mask = self._visible()
        return self._mask

    def _visible(self) -> Bool[Tensor, "Z 1 W X"]:
        own = torch.arange(self.count * self.size, device=self.first.device).view(self.count, self.size)  # N W
        seen = own if self.count == 1 else torch.cat([own - self.size, own], dim=1)  # N 2W, or N W
        # What fills up the last block attends to itself alone: a query that attends to nothing would give NaN.
        filled = own.flatten()[self.length :].expand(len(self.first), -1)
        first = torch.cat([self.first, filled], dim=1).view(-1, self.count, self.size)  # B N W
        visible = (seen[:, None] >= first[..., None]) & (seen[:, None] <= own[:, :, None])  # B N W 2W (or W W)
        return visible.flatten(0, 1)[:, None]

    def attend(self, queries: Heads, keys: Heads, values: Heads) -> Heads:
        """Attend block by block."""
        q = self._cut(queries).flatten(0, 1).transpose(1, 2)  # B·N H W E
        k, v = self._with_previous(keys), self._with_previous(values)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)  # B·N H W E
        batch, _, num_heads, width = queries.shape
        rows = mixed.transpose(1, 2).reshape(batch, self.count * self.size, num_heads, width)
        return rows[:, : self.length]

    def _cut(self, states: Heads) -> Tensor:
        batch, _, num_heads, width = states.shape
        padded = F.pad(states, (0, 0, 0, 0, 0, self.padding)) if self.padding else states
        return padded.view(batch, self.count, self.size, num_heads, width)  # B N W H E

    def _with_previous(self, states: Heads) -> Tensor:
        blocks = self._cut(states)
        if self.count > 1:
            blocks = torch.cat([F.pad(blocks, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1], blocks], dim=2)
        return blocks.flatten(0, 1).transpose(1, 2)  # B·N H 2W E (or W)


def _forward(queries: Tensor, keys: Tensor, values: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    check_equal("attend_to_runs", queries.shape, keys.shape, values.shape)
    check_equal("attend_to_runs", queries.shape[:2], first.shape)
    queries, keys, values, first = (part.contiguous() for part in (queries, keys, values, first))
    out, (batch, length, num_heads, _) = torch.empty_like(queries), queries.shape
    totals = queries.new_empty(batch, num_heads, length, dtype=torch.float32)
    call("attend_forward", queries.dtype, queries, keys, values, first, *queries.shape, out, totals)
    return out, totals


def _forward_fake(queries: Tensor, keys: Tensor, values: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    batch, length, num_heads, _ = queries.shape
    return queries.new_empty(queries.shape), queries.new_empty(batch, num_heads, length, dtype=torch.float32)


def _backward(
    given: Tensor, queries: Tensor, keys: Tensor, values: Tensor, out: Tensor, totals: Tensor, first: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    tensors = [part.contiguous() for part in (given, queries, keys, values, out, totals, first)]
    found = torch.empty_like(tensors[1]), torch.empty_like(tensors[2]), torch.empty_like(tensors[3])
    call("attend_backward", queries.dtype, *tensors, *queries.shape, *found)
    return found


_ATTEND = define(
    "attend_to_runs(Tensor queries, Tensor keys, Tensor values, Tensor first) -> (Tensor, Tensor)",
    _forward,
    fake=_forward_fake,
)
_ATTEND_BACKWARD = define(
    "attend_to_runs_backward(Tensor given, Tensor queries, Tensor keys, Tensor values, Tensor out, Tensor totals, "
    "Tensor first) -> (Tensor, Tensor, Tensor)",
    _backward,
    fake=lambda _, *inputs: tuple(part.new_empty(part.shape) for part in inputs[:3]),
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output, inputs[3])


def _gradients(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
    return (*_ATTEND_BACKWARD(given, *ctx.saved_tensors), None)


differentiate(_ATTEND, _gradients, setup=_setup)


def _serves(queries: Tensor, keys: Tensor, values: Tensor, runs: Runs) -> bool:  # noqa: ARG001
    return serves(queries, keys, values, widths=(queries.shape[-1],))


def _native(queries: Tensor, keys: Tensor, values: Tensor, runs: Runs) -> Tensor:
    return _ATTEND(queries, keys, values, runs.first)[0]


@operator(native=_native, serves=_serves)
def attend_to_runs(queries: Heads, keys: Heads, values: Heads, runs: Runs) -> Heads:
    """Attend from each position to its run; see `Runs`.

    The reference needs masks: over whole rows, or over blocks where runs are of limited length.
    """
    if runs.blocks is not None:
        return runs.blocks.attend(queries, keys, values)
    q, k, v = (part.transpose(1, 2) for part in (queries, keys, values))  # B H T E
    return F.scaled_dot_product_attention(q, k, v, attn_mask=runs.mask).transpose(1, 2)


class PackedRows(NamedTuple):
    """Rows laid out for attention to runs."""

    states: Float[Tensor, "R N D"]
    segments: Int[Tensor, "R N"]
    positions: Int[Tensor, "R N"]
    places: Int[Tensor, " N"] | None
    """Where each position was, counted through all rows; None if rows are as they were."""
    shape: tuple[int, int]

    def unpack(self, states: Float[Tensor, "R N D"]) -> Float[Tensor, "B P D"]:
        """Put states back into their rows, with zeros in padding."""
        if self.places is None:
            return states
        batch, length = self.shape
        flat = states.new_zeros(batch * length, states.shape[2]).index_copy(0, self.places, states[0])
        return flat.view(batch, length, -1)


def pack_rows(
    states: Float[Tensor, "B P D"], *, segments: Int[Tensor, "B P"], positions: Int[Tensor, "B P"], head_dim: int
) -> PackedRows:
    """Lay rows out for layers whose attention is to runs.

    Where just the runs are computed, all rows become one without padding. With masks that would cost more than it
    saves, and in a compiled graph sizes must not depend on data: rows stay as they are.

    Args:
        states: one vector per position.
        segments: segment number of each position; −1 in padding.
        positions: of each in its segment.
        head_dim: width of a head.
    """
    shape = (states.shape[0], states.shape[1])
    as_they_are = PackedRows(states, segments, positions, None, shape)
    if torch.compiler.is_compiling() or not _computes_runs(states, head_dim=head_dim):
        return as_they_are
    places = (segments.flatten() >= 0).nonzero()[:, 0]
    if not len(places):
        return as_they_are
    rows = torch.arange(len(segments), device=segments.device)[:, None]
    apart = segments + rows * (segments.max() + 1)  # no two rows share a segment
    packed, numbers, times = (part.flatten(0, 1)[None, places] for part in (states, apart, positions))
    return PackedRows(packed, numbers, times, places, shape)


def attention_mask_bytes(like: Tensor, *, rows: int, length: int, head_dim: int) -> int:
    """Return the memory that masks over whole rows need at once; 0 where just the runs are computed.

    Args:
        like: a tensor of the device and dtype of the queries.
        rows: B.
        length: T.
        head_dim: width of a head.
    """
    return 0 if _computes_runs(like, head_dim=head_dim) else _MASK_BYTES * rows * length**2


def _computes_runs(like: Tensor, *, head_dim: int) -> bool:
    return serves(like, widths=(head_dim,)) and attend_to_runs.may_be_native() and is_available()
