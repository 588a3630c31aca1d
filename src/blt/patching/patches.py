"""The patches of a batch, in the one convention of time."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from blt.ops import to_device
from blt.shapes import Bool, Int, Tensor


@dataclass(frozen=True, eq=False)
class Patches:
    """Which byte completes a patch; everything else follows from that.

    `ends[b, t]` says that a patch is complete once byte t has been read. Storing ends, and not starts, is what lets a
    prefix alone give the same states as the same prefix inside a longer text. A trailing open patch is never read.
    """

    ends: Bool[Tensor, "B T"]
    """True after every byte that completes a patch, decided from that byte and earlier ones only."""
    slots_multiple: int = 1
    """Round the number of slots P up to a multiple of this, so that compiled code sees few different shapes."""
    known_slots: int | None = None
    """P, where it is known, so that the host need not wait for the device that `ends` is on."""

    def to(self, device: torch.device) -> "Patches":
        """Return the patches on a device; the number of slots is counted where they are now."""
        return replace(self, ends=to_device(self.ends, device), known_slots=self.num_slots)

    @cached_property
    def ids(self) -> Int[Tensor, "B T"]:
        """The patch that each byte lies in, counted from 0 in each row."""
        ends = self.ends.long()
        return ends.cumsum(1) - ends

    @cached_property
    def readable(self) -> Int[Tensor, "B T"]:
        """The newest patch that is complete once byte t is read; −1 where there is none yet."""
        return torch.where(self.ends, self.ids, self.ids - 1)

    @cached_property
    def num_complete(self) -> Int[Tensor, " B"]:
        """How many complete patches each row has."""
        return self.ends.long().sum(1)

    @cached_property
    def num_slots(self) -> int:
        """P: slots of a row, enough for the row with the most complete patches; at least 1."""
        if self.known_slots is not None:
            return self.known_slots
        most = max(1, int(self.num_complete.max())) if self.ends.numel() else 1
        return -(-most // self.slots_multiple) * self.slots_multiple

    @cached_property
    def is_complete(self) -> Bool[Tensor, "B P"]:
        """Which slots hold a complete patch."""
        return torch.arange(self.num_slots, device=self.ends.device) < self.num_complete[:, None]

    @cached_property
    def end_positions(self) -> Int[Tensor, "B P"]:
        """Position of the byte that completes each patch; 0 in the slots that hold none."""
        batch, length = self.ends.shape
        positions = torch.arange(length, device=self.ends.device).expand(batch, length)
        slots = torch.where(self.ends, self.ids, self.num_slots)  # open bytes go to one slot more, cut off below
        filled = torch.zeros(batch, self.num_slots + 1, dtype=torch.long, device=self.ends.device)
        return filled.scatter(1, slots, positions)[:, :-1]

    @cached_property
    def lengths(self) -> Int[Tensor, "B P"]:
        """Bytes of each complete patch; 0 in the slots that hold none."""
        previous = torch.nn.functional.pad(self.end_positions, (1, 0), value=-1)[:, :-1]
        return torch.where(self.is_complete, self.end_positions - previous, 0)
