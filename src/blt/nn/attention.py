"""Self-attention and its masks.

A layer computes queries, keys and values; an `Attend` decides which keys each query attends to. Patterns over whole
rows (`WindowPattern`, `CausalPattern`) and the KV cache (`blt.nn.cache`) are interchangeable there.
"""

from collections.abc import Callable

from torch import nn

from blt.nn.linear import Linear
from blt.ops import RotaryTable, Runs, attend_to_runs, rotate
from blt.shapes import Float, Int, Tensor

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


class CausalPattern:
    """An `Attend` over whole rows: causal attention within a segment; quadratic in T."""

    def __init__(self, segments: Int[Tensor, "B T"]) -> None:
        """Args: segments: segment number of each position; attention never crosses segments."""
        self.runs = Runs(segments)

    def __call__(self, queries: Heads, keys: Heads, values: Heads) -> Heads:
        """Attend; see `Attend`."""
        return attend_to_runs(queries, keys, values, self.runs)


class WindowPattern:
    """An `Attend` over whole rows: causal sliding-window attention within a segment; linear in T."""

    def __init__(self, segments: Int[Tensor, "B T"], *, window: int) -> None:
        """Args: segments: segment number of each position; window: positions attended to, itself included."""
        self.runs = Runs(segments, window=window)

    def __call__(self, queries: Heads, keys: Heads, values: Heads) -> Heads:
        """Attend; see `Attend`."""
        return attend_to_runs(queries, keys, values, self.runs)
