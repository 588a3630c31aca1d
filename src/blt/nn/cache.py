"""The KV cache of incremental decoding.

One cache holds all layers of a stack. Each row has its own position, counted from the start of its segment. Position p
is stored in slot p mod the number of slots. The cache does not store the rows' positions: its user keeps one number
per row. Starting a new segment sets that number to −1, and a rollback lowers it: entries beyond it are masked, and
overwritten later. A ring buffer (a stack with an attention window) has `max_rollback` slots more than its window, which
is how many positions can be read at once, and rolled back.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from blt.nn.attention import Attend, Heads
from blt.nn.configuration import LocalConfig, TransformerConfig
from blt.shapes import Bool, Float, Int, Tensor

HostInts = npt.NDArray[np.int64]
"""Integers on the host (NumPy), for control flow without a device synchronisation."""


class StepInputs(NamedTuple):
    """The positions that one decoding step computes: some positions of some rows, ascending within a row."""

    rows: Int[Tensor, " N"]
    """Cache row of each position."""
    positions: Int[Tensor, " N"]
    """Position in its row's segment, from 0."""
    newest: Int[Tensor, " N"]
    """Largest position of the same row."""
    longest: int
    """Largest position of all."""

    @classmethod
    def of(cls, rows: HostInts, positions: HostInts, newest: HostInts, *, device: torch.device) -> "StepInputs":
        """Return the inputs as tensors on the given device."""
        there = [torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in (rows, positions, newest)]
        return cls(there[0], there[1], there[2], longest=int(positions.max()))


class KVRecorder:
    """An `Attend` over whole rows that records the keys and values of every layer, to fill a cache with (prefill)."""

    def __init__(self, attend: Attend) -> None:
        """Args: attend: the pattern to compute."""
        self.attend = attend
        self.layers: list[tuple[Heads, Heads]] = []

    def __call__(self, queries: Heads, keys: Heads, values: Heads) -> Heads:
        """Attend; see `Attend`."""
        self.layers.append((keys, values))
        return self.attend(queries, keys, values)


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

    def attend(self, layer: int, places: StepInputs) -> Attend:
        """Return the `Attend` of one layer: it stores the new keys and values, then attends to the cache.

        Queries, keys and values have one row per position, each of length 1.
        """

        def step(queries: Heads, keys: Heads, values: Heads) -> Heads:
            self.write(layer, places, keys[:, 0], values[:, 0])
            return self.read(layer, places, queries)

        return step

    def write(
        self, layer: int, places: StepInputs, keys: Float[Tensor, "N H E"], values: Float[Tensor, "N H E"]
    ) -> None:
        """Store one layer's keys and values."""
        slots = places.positions % self.num_slots
        self.keys[layer][places.rows, :, slots] = keys.to(self.keys.dtype)
        self.values[layer][places.rows, :, slots] = values.to(self.values.dtype)

    def read(self, layer: int, places: StepInputs, queries: Float[Tensor, "N 1 H E"]) -> Float[Tensor, "N 1 H E"]:
        """Attend from each query to the cached positions visible to it."""
        num_seen = self.num_slots if self.window is not None else places.longest + 1
        slots = torch.arange(num_seen, device=places.rows.device)
        newest, positions = places.newest[:, None], places.positions[:, None]
        # Recover which position each slot holds from the row's newest position alone: slot s holds the largest p ≤
        # newest with p ≡ s (mod S), that is newest − ((newest − s) mod S). No tags are stored, so a rollback need not
        # clear anything: entries written beyond `newest` are read as the position one lap earlier. They are never
        # visible, since a ring has S = window + max_rollback slots and one lap earlier is outside the window. A
        # negative result is a slot not yet written in this segment. The bound `≤ positions` is the causal mask among
        # positions of one step.
        held = newest - (newest - slots) % self.num_slots  # N S
        visible = (held >= 0) & (held <= positions)
        if self.window is not None:
            visible &= held > positions - self.window
        keys, values = (part[layer, places.rows, :, :num_seen] for part in (self.keys, self.values))  # N H S E
        q = queries.transpose(1, 2).to(keys.dtype)  # N H 1 E
        mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=visible[:, None, None])
        return mixed.transpose(1, 2).to(queries.dtype)

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

    def fill(
        self,
        rows: Int[Tensor, " R"],
        layers: Sequence[tuple[Heads, Heads]],
        *,
        positions: Int[Tensor, "R T"],
        mask: Bool[Tensor, "R T"],
    ) -> None:
        """Store the keys and values of a parallel pass over whole rows (prefill), as if read step by step.

        Args:
            rows: the cache rows to fill.
            layers: keys and values of each layer, from a `KVRecorder`.
            positions: position of each entry in its segment.
            mask: entries of the segment that continues.
        """
        newest = torch.where(mask, positions, -1).amax(1)
        self.make_room(int(newest.max()))
        kept = mask & (positions > newest[:, None] - self.num_slots)
        numbers, times = kept.nonzero(as_tuple=True)
        slots = positions[numbers, times] % self.num_slots
        for layer, (keys, values) in enumerate(layers):
            self.keys[layer][rows[numbers], :, slots] = keys[numbers, times].to(self.keys.dtype)
            self.values[layer][rows[numbers], :, slots] = values[numbers, times].to(self.values.dtype)

    def nbytes(self) -> int:
        """Return the memory in use, in bytes."""
        return self.keys.nbytes + self.values.nbytes
