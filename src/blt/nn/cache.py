"""Keys and values kept from step to step.

A cache serves all layers of one stack, for rows that stand at positions of their own, counted from the start of their
segment. Position p lies in slot p mod the number of slots. A cache does not know how far its rows have come: that is
one number per row, which its user keeps. So to start a new segment is to set that number to −1, and to take back what
was read last is to lower it: what lies beyond is not seen, and overwritten in time. A ring (a stack with a window) has
room for `max_rollback` positions beyond its window, which is how many can be read at once, and taken back.
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
"""Whole numbers on the host, where they steer what is computed without waiting for a device."""


class StepInputs(NamedTuple):
    """What is computed at once: some positions of some rows, in ascending order within a row."""

    rows: Int[Tensor, " N"]
    """Of the cache."""
    positions: Int[Tensor, " N"]
    """Of each in its row's segment, from 0."""
    newest: Int[Tensor, " N"]
    """The last of the positions of its row."""
    longest: int
    """The largest position."""

    @classmethod
    def of(cls, rows: HostInts, positions: HostInts, newest: HostInts, *, device: torch.device) -> "StepInputs":
        """Bring places to the device that computes."""
        there = [torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in (rows, positions, newest)]
        return cls(there[0], there[1], there[2], longest=int(positions.max()))


class KVRecorder:
    """An `Attend` over whole rows that remembers the keys and values of every layer, to fill a cache with."""

    def __init__(self, attend: Attend) -> None:
        """Args: attend: who sees whom."""
        self.attend = attend
        self.layers: list[tuple[Heads, Heads]] = []

    def __call__(self, queries: Heads, keys: Heads, values: Heads) -> Heads:
        """Attend; see `Attend`."""
        self.layers.append((keys, values))
        return self.attend(queries, keys, values)


class KeyValueCache:
    """Keys and values of each layer and row of a stack: a ring if the stack has a window, else growing by doubling.

    Args:
        config: shape of the stack.
        batch: rows.
        like: a tensor of the wanted device and type.
        max_rollback: how many positions can be read at once, and taken back.
    """

    def __init__(self, config: TransformerConfig, *, batch: int, like: Tensor, max_rollback: int) -> None:
        self.window = config.window if isinstance(config, LocalConfig) else None
        num_slots = 16 if self.window is None else self.window + max_rollback
        shape = (config.num_layers, batch, config.num_heads, num_slots, config.dim // config.num_heads)
        self.keys: Float[Tensor, "L B H S E"] = like.new_zeros(shape)
        self.values: Float[Tensor, "L B H S E"] = like.new_zeros(shape)

    @property
    def num_slots(self) -> int:
        """S: how many positions a row can hold."""
        return self.keys.shape[3]

    def attend(self, layer: int, places: StepInputs) -> Attend:
        """Return a layer the `Attend` that stores these places' keys and values and shows what each may see.

        Queries, keys and values have one row per place, each of length 1.
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
        """Let each place's query meet all that the place may see."""
        num_seen = self.num_slots if self.window is not None else places.longest + 1
        slots = torch.arange(num_seen, device=places.rows.device)
        newest, positions = places.newest[:, None], places.positions[:, None]
        held = newest - (newest - slots) % self.num_slots  # N S: the position in each slot; below 0: none
        visible = (held >= 0) & (held <= positions)
        if self.window is not None:
            visible &= held > positions - self.window
        keys, values = (part[layer, places.rows, :, :num_seen] for part in (self.keys, self.values))  # N H S E
        asking = queries.transpose(1, 2).to(keys.dtype)  # N H 1 E
        mixed = F.scaled_dot_product_attention(asking, keys, values, attn_mask=visible[:, None, None])
        return mixed.transpose(1, 2).to(queries.dtype)

    def make_room(self, longest: int) -> None:
        """Be able to hold this position too."""
        more = longest + 1 - self.num_slots
        if self.window is None and more > 0:
            more = max(more, self.num_slots)
            self.keys, self.values = (F.pad(part, (0, 0, 0, more)) for part in (self.keys, self.values))

    def add_rows(self, count: int) -> None:
        """Make room for more rows."""
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
        """Take over what a pass over whole rows has computed, as if it had come step by step.

        Args:
            rows: which rows they are here.
            layers: keys and values of each layer, from a `KVRecorder`.
            positions: of each entry in its segment.
            mask: which entries lie in the segment that goes on.
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
        """Return the memory that it takes."""
        return self.keys.nbytes + self.values.nbytes
