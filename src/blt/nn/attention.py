"""Self-attention, and the patterns of who sees whom.

A layer computes queries, keys and values; an `Attend` says which keys each query meets. Patterns over whole rows
(`WindowPattern`, `CausalPattern`) and caches fed one position at a time (`blt.nn.cache`) are interchangeable there, so
that training and generation run the same layers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch
from torch import nn
from torch.nn import functional as F

from blt.nn.linear import Linear
from blt.nn.native.fused import FusedAttention, fits
from blt.nn.rotary import RotaryTable, rotate
from blt.nn.segments import run_positions
from blt.shapes import Bool, Float, Int, Tensor

Heads = Float[Tensor, "B T H E"]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(queries, keys, values) → values gathered for each query, all `B T H E`."""


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
        """Mix each position with those that `attend` lets it see."""
        split = (*states.shape[:2], self.num_heads, -1)
        queries = rotate(self.query(states).view(split), table)  # B T H E
        keys = rotate(self.key(states).view(split), table)
        values = self.value(states).view(split)
        return self.output(attend(queries, keys, values).reshape(states.shape))


class RunPattern(ABC):
    """Each position sees a run of positions that ends with itself; `first` says where the run begins.

    On a CPU the runs are all that is computed; elsewhere masks over blocks or rows do the same.
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
    """Whether a `RunPattern` computes nothing but its runs, so that many segments can share one row for free."""
    return fits(states, widths=(head_dim,))


class CausalPattern(RunPattern):
    """Each position sees itself and all earlier ones of its segment; quadratic in T."""

    def __init__(self, segments: Int[Tensor, "B T"]) -> None:
        """Args: segments: runs of equal numbers belong together; positions of different segments never meet."""
        self.segments = segments
        self.first = torch.arange(segments.shape[1], device=segments.device) - run_positions(segments)

    @cached_property
    def visible(self) -> Bool[Tensor, "B 1 T T"]:
        """Which keys each query meets."""
        length = self.segments.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.segments.device).tril()
        return (causal & (self.segments[:, :, None] == self.segments[:, None, :]))[:, None]

    def attend_masked(self, queries: Heads, keys: Heads, values: Heads) -> Heads:
        """Attend by a mask over whole rows."""
        q, k, v = (part.transpose(1, 2) for part in (queries, keys, values))  # B H T E
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.visible).transpose(1, 2)


class WindowPattern(RunPattern):
    """Each position sees the `window` newest positions of its segment, itself included; linear in T.

    Where there are masks, rows are cut into blocks of `window`; the queries of a block meet the keys of their own block
    and of the one before, which is all that a window can reach. No T×T mask exists.
    """

    def __init__(self, segments: Int[Tensor, "B T"], *, window: int) -> None:
        """Args: segments: runs of equal numbers belong together; window: how many one sees, itself included."""
        self.segments, self.window = segments, window
        self.length = segments.shape[1]
        self.block = min(window, self.length)
        self.num_blocks = -(-self.length // self.block)
        self.padding = self.num_blocks * self.block - self.length
        index = torch.arange(self.length, device=segments.device)
        self.first = index - run_positions(segments).clamp_max(window - 1)

    @cached_property
    def visible(self) -> Bool[Tensor, "Z 1 W X"]:
        """Which keys the queries of each block meet: B·N × 1 × W × 2W, or × W where one block holds the row."""
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
