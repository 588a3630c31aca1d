"""Self-attention and its masks.

A layer computes queries, keys and values; an `Attend` decides which keys each query attends to. Patterns over whole
rows (`WindowPattern`, `CausalPattern`) and the KV cache (`blt.nn.cache`) are interchangeable there, so that training
and generation run the same layers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch
from torch import nn
from torch.nn import functional as F

from blt.nn.linear import Linear
from blt.nn.rotary import RotaryTable, rotate
from blt.nn.segments import run_positions
from blt.ops.native.fused import FusedAttention, fits
from blt.shapes import Bool, Float, Int, Tensor

Heads = Float[Tensor, "B T H E"]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(queries, keys, values) → the attention output of each query, all `B T H E`."""


class SelfAttention(nn.Module):
    """Multi-head self-attention with RoPE, without biases."""

    def __init__(self, dim: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = Linear(dim, dim)
        self.key = Linear(dim, dim)
        self.value = Linear(dim, dim)
        self.output = Linear(dim, dim)

    def forward(self, states: Float[Tensor, "B T D"], table: RotaryTable, attend: Attend) -> Float[Tensor, "B T D"]:
        """Attend to the positions that `attend` makes visible, then project."""
        split = (*states.shape[:2], self.num_heads, -1)
        queries = rotate(self.query(states).view(split), table)  # B T H E
        keys = rotate(self.key(states).view(split), table)
        values = self.value(states).view(split)
        return self.output(attend(queries, keys, values).reshape(states.shape))


class RunPattern(ABC):
    """Each position attends to a contiguous run of positions that ends with itself; `first` is where the run begins.

    On a CPU only the runs are computed; elsewhere masks over blocks or whole rows give the same result.
    """

    first: Int[Tensor, "B T"]

    def __call__(self, queries: Heads, keys: Heads, values: Heads) -> Heads:
        """Attend; see `Attend`."""
        if fits(queries, keys, values, widths=(queries.shape[-1],)):
            return FusedAttention.of(queries, keys, values, self.first)
        return self.attend_masked(queries, keys, values)

    @abstractmethod
    def attend_masked(self, queries: Heads, keys: Heads, values: Heads) -> Heads:
        """Attend by masks."""


def computes_runs(states: Float[Tensor, "B T D"], *, head_dim: int) -> bool:
    """Whether a `RunPattern` computes its runs only, so that packing many segments into one row costs nothing extra."""
    return fits(states, widths=(head_dim,))


class CausalPattern(RunPattern):
    """Causal attention within a segment; quadratic in T."""

    def __init__(self, segments: Int[Tensor, "B T"]) -> None:
        """Args: segments: segment number of each position; attention never crosses segments."""
        self.segments = segments
        self.first = torch.arange(segments.shape[1], device=segments.device) - run_positions(segments)

    @cached_property
    def visible(self) -> Bool[Tensor, "B 1 T T"]:
        """Return the attention mask over whole rows."""
        length = self.segments.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.segments.device).tril()
        return (causal & (self.segments[:, :, None] == self.segments[:, None, :]))[:, None]

    def attend_masked(self, queries: Heads, keys: Heads, values: Heads) -> Heads:
        """Attend by a mask over whole rows."""
        q, k, v = (part.transpose(1, 2) for part in (queries, keys, values))  # B H T E
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.visible).transpose(1, 2)


class WindowPattern(RunPattern):
    """Causal sliding-window attention within a segment: the `window` newest positions, itself included; linear in T.

    With masks, rows are split into blocks of `window`; the queries of a block attend to the keys of their own block and
    of the one before, which is all that a window can reach. No T×T mask is made.
    """

    def __init__(self, segments: Int[Tensor, "B T"], *, window: int) -> None:
        """Args: segments: segment number of each position; window: positions attended to, itself included."""
        self.segments, self.window = segments, window
        self.length = segments.shape[1]
        self.block = min(window, self.length)
        self.num_blocks = -(-self.length // self.block)
        self.padding = self.num_blocks * self.block - self.length
        index = torch.arange(self.length, device=segments.device)
        self.first = index - run_positions(segments).clamp_max(window - 1)

    @cached_property
    def visible(self) -> Bool[Tensor, "Z 1 W X"]:
        """Return the attention mask of each block: B·N × 1 × W × 2W, or × W where one block holds the row."""
        blocks = F.pad(self.segments, (0, self.padding), value=-1).view(-1, self.num_blocks, self.block)
        offsets = torch.arange(self.block, device=self.segments.device)
        if self.num_blocks == 1:  # the row fits into one block: nothing lies before it
            distance = offsets[:, None] - offsets
            seen = blocks
        else:
            distance = offsets[:, None] + self.block - torch.arange(2 * self.block, device=self.segments.device)
            seen = torch.cat([F.pad(blocks, (0, 0, 1, 0), value=-2)[:, :-1], blocks], dim=2)
        in_window = (distance >= 0) & (distance < self.window)
        visible = in_window & (blocks[..., :, None] == seen[..., None, :])  # B N W 2W (or W W)
        return visible.flatten(0, 1)[:, None]

    def attend_masked(self, queries: Heads, keys: Heads, values: Heads) -> Heads:
        """Attend by a mask over blocks."""
        q = self._blocks(queries)
        k, v = self._with_previous(keys), self._with_previous(values)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.visible)  # B·N H W E
        batch, _, num_heads, width = queries.shape
        rows = mixed.transpose(1, 2).reshape(batch, self.num_blocks * self.block, num_heads, width)
        return rows[:, : self.length]

    def _cut(self, states: Heads) -> Tensor:
        batch, _, num_heads, width = states.shape
        padded = F.pad(states, (0, 0, 0, 0, 0, self.padding)) if self.padding else states
        return padded.view(batch, self.num_blocks, self.block, num_heads, width)  # B N W H E

    def _blocks(self, states: Heads) -> Tensor:
        return self._cut(states).flatten(0, 1).transpose(1, 2)  # B·N H W E

    def _with_previous(self, states: Heads) -> Tensor:
        if self.num_blocks == 1:
            return self._blocks(states)
        blocks = self._cut(states)
        previous = F.pad(blocks, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]
        return torch.cat([previous, blocks], dim=2).flatten(0, 1).transpose(1, 2)  # B·N H 2W E
