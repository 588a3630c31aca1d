"""Keys and values kept from step to step: an `Attend` fed one position at a time.

A cache serves all layers of one stack. `advance` works out once per step where each row stands, and `attends` then
gives every layer its `Attend`. Rows stand at positions of their own, counted from the start of their segment. Position
p lives in slot p mod the number of slots; so, whatever an earlier segment left behind, slot s holds something of the
current segment exactly when s ≤ the newest position.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch.nn import functional as F

from blt.nn.attention import Attend, Heads
from blt.nn.configuration import LocalConfig, TransformerConfig
from blt.shapes import Bool, Float, Int, Tensor


class Place(NamedTuple):
    """Where one step of some rows lands, and what it sees; the same for all layers."""

    rows: Int[Tensor, " R"]
    """The rows that step, in ascending order."""
    positions: Int[Tensor, "R 1"]
    """Of each in its segment, from 0."""
    slots: Int[Tensor, " R"]
    """Where the new keys and values go."""
    visible: Bool[Tensor, "R 1 1 S"]
    """Which of the first S slots hold something of the segment, the new position included."""

    def only(self, chosen: Int[Tensor, " C"]) -> "Place":
        """Keep some of the rows, by their number in `rows`."""
        return Place(*(part[chosen] for part in self))


class Recording:
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
    """Keys and values of each layer and row of a stack; subclasses say how much room there is."""

    def __init__(self, config: TransformerConfig, *, batch: int, num_slots: int, like: Tensor) -> None:
        """Make an empty cache.

        Args:
            config: shape of the stack.
            batch: rows, all at their start.
            num_slots: room for so many positions.
            like: a tensor of the wanted device and type.
        """
        shape = (config.num_layers, batch, config.num_heads, num_slots, config.dim // config.num_heads)
        self.keys: Float[Tensor, "L B H S E"] = like.new_zeros(shape)
        self.values: Float[Tensor, "L B H S E"] = like.new_zeros(shape)
        self.newest: Int[Tensor, " B"] = torch.full((batch,), -1, device=like.device)
        """Position of each row's newest entry; −1 where its segment has none."""

    @property
    def batch(self) -> int:
        """How many rows there are now."""
        return self.keys.shape[1]

    @property
    def num_slots(self) -> int:
        """S: how many positions a row can hold."""
        return self.keys.shape[3]

    def restart(self, rows: Bool[Tensor, " B"]) -> None:
        """Start a new segment in some rows, given by mask: they see nothing of what came before."""
        self.newest = self.newest.masked_fill(rows, -1)

    def advance(self, rows: Int[Tensor, " R"] | None = None) -> Place:
        """Move on by one position.

        Args:
            rows: those that do, in ascending order; all by default.
        """
        if rows is None:
            rows = torch.arange(self.batch, device=self.newest.device)
        positions = self.newest[rows] + 1
        self.newest = self.newest.index_copy(0, rows, positions)
        num_seen = self._make_room(positions)
        visible = torch.arange(num_seen, device=rows.device) <= positions[:, None]
        return Place(rows, positions[:, None], positions % self.num_slots, visible[:, None, None])

    def attends(self, place: Place) -> list[Attend]:
        """Give each layer the `Attend` for this step."""
        return [partial(self._step, layer, place) for layer in range(len(self.keys))]

    def write(self, layer: int, place: Place, keys: Float[Tensor, "R H E"], values: Float[Tensor, "R H E"]) -> None:
        """Store one layer's keys and values of this step."""
        self.keys[layer][place.rows, :, place.slots] = keys
        self.values[layer][place.rows, :, place.slots] = values

    def read(
        self, layer: int, place: Place, queries: Float[Tensor, "R Q H E"], *, scale: float | None = None
    ) -> Float[Tensor, "R Q H E"]:
        """Let each row's queries meet all that the row may see.

        Args:
            layer: of the stack.
            place: of this step.
            queries: any number per row.
            scale: of the scores; 1/√E by default.
        """
        keys, values = (self._seen(part[layer], place) for part in (self.keys, self.values))  # R H S E
        asking = queries.transpose(1, 2)  # R H Q E
        mixed = F.scaled_dot_product_attention(asking, keys, values, attn_mask=place.visible, scale=scale)
        return mixed.transpose(1, 2)

    def fill(
        self, layers: Sequence[tuple[Heads, Heads]], *, positions: Int[Tensor, "B T"], belongs: Bool[Tensor, "B T"]
    ) -> None:
        """Take over what a pass over whole rows has computed, as if it had come step by step.

        Args:
            layers: keys and values of each layer, from a `Recording`.
            positions: of each entry in its segment.
            belongs: which entries lie in the segment that goes on.
        """
        self.newest = torch.where(belongs, positions, -1).amax(1)
        self._make_room(self.newest)
        kept = belongs & (positions > self.newest[:, None] - self.num_slots)
        rows, times = kept.nonzero(as_tuple=True)
        slots = positions[rows, times] % self.num_slots
        for layer, (keys, values) in enumerate(layers):
            self.keys[layer][rows, :, slots] = keys[rows, times]
            self.values[layer][rows, :, slots] = values[rows, times]

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only some rows, in the order given."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.newest = self.newest[rows]

    def append(self, other: "KeyValueCache") -> None:
        """Add the rows of another cache of the same stack after one's own."""
        num_slots = max(self.num_slots, other.num_slots)
        self._grow(num_slots)
        other._grow(num_slots)
        self.keys = torch.cat([self.keys, other.keys], dim=1)
        self.values = torch.cat([self.values, other.values], dim=1)
        self.newest = torch.cat([self.newest, other.newest])

    def _step(self, layer: int, place: Place, queries: Heads, keys: Heads, values: Heads) -> Heads:
        self.write(layer, place, keys[:, 0], values[:, 0])
        return self.read(layer, place, queries)

    def _seen(self, stored: Float[Tensor, "B H S E"], place: Place) -> Float[Tensor, "R H S2 E"]:
        seen = stored[:, :, : place.visible.shape[-1]]
        return seen if len(place.rows) == self.batch else seen[place.rows]

    def _grow(self, num_slots: int) -> None:
        more = num_slots - self.num_slots
        if more > 0:
            self.keys, self.values = (F.pad(part, (0, 0, 0, more)) for part in (self.keys, self.values))

    def _make_room(self, positions: Int[Tensor, " R"]) -> int:
        """Be able to hold these positions too, and say how many slots a query must look at."""
        raise NotImplementedError


class WindowCache(KeyValueCache):
    """What a `WindowPattern` would show: a ring, which a new position enters where the oldest leaves."""

    def __init__(self, config: LocalConfig, *, batch: int, like: Tensor) -> None:
        """Make an empty cache; see `KeyValueCache`."""
        super().__init__(config, batch=batch, num_slots=config.window, like=like)

    def _make_room(self, positions: Int[Tensor, " R"]) -> int:  # noqa: ARG002 (a ring has room for any position)
        return self.num_slots


class GrowingCache(KeyValueCache):
    """What a `CausalPattern` would show: everything since the start of the segment; room grows by doubling."""

    def __init__(self, config: TransformerConfig, *, batch: int, like: Tensor, num_slots: int = 16) -> None:
        """Make an empty cache; see `KeyValueCache`."""
        super().__init__(config, batch=batch, num_slots=num_slots, like=like)

    def _make_room(self, positions: Int[Tensor, " R"]) -> int:
        longest = int(positions.max()) + 1
        if longest > self.num_slots:
            self._grow(max(longest, 2 * self.num_slots))
        return longest
