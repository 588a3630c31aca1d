"""What a stack of layers keeps of each row between calls: KV caches.

One cache holds all layers of a stack. Each row has its own position, counted from the start of its segment. Position p
is stored in slot p mod the number of slots. The cache does not store the rows' positions: its user keeps one number
per row. Starting a new segment sets that number to −1, and a rollback lowers it: entries beyond it are masked, and
overwritten later. A ring buffer (a stack with an attention window) has `max_rollback` slots more than its window, which
is how many positions can be read at once, and rolled back.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from blt.nn.attention import Attend, Heads
from blt.nn.configuration import LocalConfig, TransformerConfig
from blt.ops import to_device
from blt.shapes import Bool, Float, Int, Tensor

HostInts = npt.NDArray[np.int64]
"""Integers on the host (NumPy), for control flow without a device synchronisation."""


class RowInputs(NamedTuple):
    """All positions of whole rows, segment by segment; with a state, which of them it keeps (prefill)."""

    segments: Int[Tensor, "B T"]
    """Segment number of each position; attention never crosses segments."""
    positions: Int[Tensor, "B T"]
    """Of each position in its segment, from 0."""
    rows: Int[Tensor, " B"] | None = None
    """Rows of the state."""
    kept: Bool[Tensor, "B T"] | None = None
    """Positions of the one segment of each row that goes on."""


class StepInputs(NamedTuple):
    """The positions that one decoding step computes: some positions of some rows, ascending within a row."""

    rows: Int[Tensor, " N"]
    """Row of the state of each position."""
    positions: Int[Tensor, "N 1"]
    """Position in its row's segment, from 0."""
    newest: Int[Tensor, " N"]
    """Largest position of the same row."""
    longest: int
    """Largest position of all; −1 if there is none."""

    @classmethod
    def of(cls, rows: HostInts, positions: HostInts, newest: HostInts, *, device: torch.device) -> "StepInputs":
        """Return the inputs as tensors on the given device."""
        there = [to_device(torch.from_numpy(np.ascontiguousarray(part)), device) for part in (rows, positions, newest)]
        return cls(there[0], there[1][:, None], there[2], longest=int(positions.max(initial=-1)))


StackInputs = RowInputs | StepInputs
"""The positions that a forward pass computes."""


@runtime_checkable
class StackState(Protocol):
    """What a stack of layers keeps of each row between calls, filled by whole rows or by steps alike.

    Entries are indexed by position, and what a step at position p reads was written at positions up to p. So a state
    needs no undo: a row goes back by stepping again from an earlier position, at most `max_rollback` positions ago, and
    it starts anew at position 0. Rows and positions are the caller's, and how a stack reads and writes its state is its
    own. A KV cache keeps keys and values; another mixer, such as a recurrent one, would keep a ring of its states.
    """

    def add_rows(self, count: int) -> None:
        """Append empty rows."""
        ...

    def nbytes(self) -> int:
        """Return the memory in use, in bytes."""
        ...


class _Reach(NamedTuple):
    """Where the positions of a step are stored in a cache, and what they attend to."""

    rows: Int[Tensor, " N"]
    """Row of each position."""
    slots: Int[Tensor, " N"]
    """Slot of each position."""
    num_seen: int
    """S: how many slots are looked at, from the first."""
    mask: Float[Tensor, "N 1 1 S"]
    """0 where a slot holds a position that is visible, else −∞."""


class KeyValueCache:
    """Keys and values of each layer and row of a stack: a ring buffer with a window, else growing by doubling.

    Args:
        config: shape of the stack.
        batch: rows.
        like: a tensor with the device and dtype to use.
        max_rollback: how many positions can be read at once, and rolled back.
    """

    def __init__(self, config: TransformerConfig, *, batch: int, like: Tensor, max_rollback: int) -> None:
        self.window = config.window if isinstance(config, LocalConfig) else None
        num_slots = 16 if self.window is None else self.window + max_rollback
        shape = (config.num_layers, batch, config.num_heads, num_slots, config.dim // config.num_heads)
        self.keys: Float[Tensor, "L B H S E"] = like.new_zeros(shape)
        self.values: Float[Tensor, "L B H S E"] = like.new_zeros(shape)

    @property
    def num_slots(self) -> int:
        """S: slots per row."""
        return self.keys.shape[3]

    def attends(self, inputs: StackInputs, pattern: Attend | None) -> Callable[[int], Attend]:
        """Make room for these positions, and return the `Attend` of each layer, by its index.

        It stores the new keys and values. Then whole rows attend by their pattern, and steps to the cache.

        Args:
            inputs: positions that are computed.
            pattern: of whole rows; None for a step.
        """
        if pattern is not None:
            assert isinstance(inputs, RowInputs), "a pattern is of whole rows"
            return self._attends_filling(inputs, pattern)
        assert isinstance(inputs, StepInputs), "whole rows have a pattern"
        self.make_room(inputs.longest)
        reach = self._reach(inputs)
        return lambda layer: lambda queries, keys, values: self._step(layer, reach, queries, keys, values)

    def _step(self, layer: int, reach: "_Reach", queries: Heads, keys: Heads, values: Heads) -> Heads:
        """Store one position of each row, and attend to the cache; all `N 1 H E`."""
        everything = (self.keys[layer], self.values[layer])  # B H S E
        for part, new in zip(everything, (keys, values), strict=True):
            part[reach.rows, :, reach.slots] = new[:, 0].to(part.dtype)
        seen_keys, seen_values = (part[reach.rows, :, : reach.num_seen] for part in everything)  # N H S E
        q = queries.transpose(1, 2).to(seen_keys.dtype)  # N H 1 E
        mixed = F.scaled_dot_product_attention(q, seen_keys, seen_values, attn_mask=reach.mask)
        return mixed.transpose(1, 2).to(queries.dtype)

    def _attends_filling(self, inputs: RowInputs, pattern: Attend) -> Callable[[int], Attend]:
        """Return what stores each layer's keys and values as if they were read step by step (prefill)."""
        assert inputs.rows is not None, "no rows of the state are named"
        assert inputs.kept is not None, "no rows of the state are named"
        newest = torch.where(inputs.kept, inputs.positions, -1).amax(1)
        self.make_room(int(newest.max()))
        kept = inputs.kept & (inputs.positions > newest[:, None] - self.num_slots)
        numbers, times = kept.nonzero(as_tuple=True)
        rows, slots = inputs.rows[numbers], inputs.positions[numbers, times] % self.num_slots

        def fill(layer: int, queries: Heads, keys: Heads, values: Heads) -> Heads:
            self.keys[layer][rows, :, slots] = keys[numbers, times].to(self.keys.dtype)
            self.values[layer][rows, :, slots] = values[numbers, times].to(self.values.dtype)
            return pattern(queries, keys, values)

        return lambda layer: lambda queries, keys, values: fill(layer, queries, keys, values)

    def _reach(self, inputs: StepInputs) -> "_Reach":
        """Return where these positions are stored, and which stored ones they see: the same in each layer."""
        num_seen = self.num_slots if self.window is not None else inputs.longest + 1
        slots = torch.arange(num_seen, device=inputs.rows.device)
        newest, positions = inputs.newest[:, None], inputs.positions
        # Recover which position each slot holds from the row's newest position alone: slot s holds the largest p ≤
        # newest with p ≡ s (mod S), that is newest − ((newest − s) mod S). No tags are stored, so a rollback need not
        # clear anything: entries written beyond `newest` are read as the position one lap earlier. They are never
        # visible, since a ring has S = window + max_rollback slots and one lap earlier is outside the window. A
        # negative result is a slot not yet written in this segment. The bound `≤ positions` is the causal mask among
        # positions of one step.
        stored = newest - (newest - slots) % self.num_slots  # N S
        visible = (stored >= 0) & (stored <= positions)
        if self.window is not None:
            visible &= stored > positions - self.window
        mask = torch.zeros_like(visible, dtype=self.keys.dtype).masked_fill_(~visible, -torch.inf)
        return _Reach(inputs.rows, positions[:, 0] % self.num_slots, num_seen, mask[:, None, None])

    def make_room(self, longest: int) -> None:
        """Grow so that this position fits."""
        more = longest + 1 - self.num_slots
        if self.window is None and more > 0:
            more = max(more, self.num_slots)
            self.keys, self.values = (F.pad(part, (0, 0, 0, more)) for part in (self.keys, self.values))

    def add_rows(self, count: int) -> None:
        """Append empty rows."""
        self.keys, self.values = (
            torch.cat([part, part.new_zeros(len(part), count, *part.shape[2:])], dim=1)
            for part in (self.keys, self.values)
        )

    def nbytes(self) -> int:
        """Return the memory in use, in bytes."""
        return self.keys.nbytes + self.values.nbytes
