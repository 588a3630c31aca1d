"""Self-attention, and the patterns of who sees whom.

A layer computes queries, keys and values; an `Attend` says which keys each query meets. Patterns over whole rows
(`WindowPattern`, `CausalPattern`) and caches fed one position at a time (`blt.nn.cache`) are interchangeable there, so
that training and generation run the same layers.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from blt.nn.rotary import RotaryTable, rotate
from blt.shapes import Float, Int, Tensor

Heads = Float[Tensor, "B T H E"]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(queries, keys, values) → values gathered for each query, all `B T H E`."""


class SelfAttention(nn.Module):
    """Multi-head self-attention with RoPE, without biases."""

    def __init__(self, dim: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)

    def forward(self, states: Float[Tensor, "B T D"], table: RotaryTable, attend: Attend) -> Float[Tensor, "B T D"]:
        """Mix each position with those that `attend` lets it see."""
        split = (*states.shape[:2], self.num_heads, -1)
        queries = rotate(self.query(states).view(split), table)  # B T H E
        keys = rotate(self.key(states).view(split), table)
        values = self.value(states).view(split)
        return self.output(attend(queries, keys, values).reshape(states.shape))


class CausalPattern:
    """Each position sees itself and all earlier ones of its segment; quadratic in T."""

    def __init__(self, segments: Int[Tensor, "B T"]) -> None:
        """Args: segments: equal numbers belong together; positions of different segments never meet."""
        length = segments.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
        self.visible = (causal & (segments[:, :, None] == segments[:, None, :]))[:, None]  # B 1 T T

    def __call__(self, queries: Heads, keys: Heads, values: Heads) -> Heads:
        """Attend; see `Attend`."""
        q, k, v = (part.transpose(1, 2) for part in (queries, keys, values))  # B H T E
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.visible).transpose(1, 2)


class WindowPattern:
    """Each position sees the `window` newest positions of its segment, itself included; linear in T.

    Rows are cut into blocks of `window`; the queries of a block meet the keys of their own block and of the one
    before, which is all that a window can reach. No T×T mask exists.
    """

    def __init__(self, segments: Int[Tensor, "B T"], *, window: int) -> None:
        """Args: segments: equal numbers belong together; window: how many positions one sees, itself included."""
        batch, self.length = segments.shape
        self.block = min(window, self.length)
        self.num_blocks = -(-self.length // self.block)
        self.padding = self.num_blocks * self.block - self.length
        blocks = F.pad(segments, (0, self.padding), value=-1).view(batch, self.num_blocks, self.block)
        offsets = torch.arange(self.block, device=segments.device)
        if self.num_blocks == 1:  # the row fits into one block: nothing lies before it
            distance = offsets[:, None] - offsets
            seen = blocks
        else:
            distance = offsets[:, None] + self.block - torch.arange(2 * self.block, device=segments.device)
            seen = torch.cat([F.pad(blocks, (0, 0, 1, 0), value=-2)[:, :-1], blocks], dim=2)
        in_window = (distance >= 0) & (distance < window)
        visible = in_window & (blocks[..., :, None] == seen[..., None, :])  # B N W 2W (or W W)
        self.visible = visible.flatten(0, 1)[:, None]  # B·N 1 W 2W

    def __call__(self, queries: Heads, keys: Heads, values: Heads) -> Heads:
        """Attend; see `Attend`."""
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
