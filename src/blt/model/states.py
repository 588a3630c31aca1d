"""What the parts of a BLT keep of each row between calls: of the local encoder, and of the local decoder.

The stacks' own states (`blt.nn.StackState`) are among it. As there, all is indexed by position, and needs no undo.
"""

from typing import NamedTuple

import numpy as np
import torch

from blt.model.layout import Layout, StepLayout
from blt.nn import HostInts, StackState
from blt.ops import take, to_device
from blt.shapes import Float, Int, Tensor


class PartStates(NamedTuple):
    """The state of each part."""

    local_encoder: "EncoderState"
    global_transformer: StackState
    local_decoder: "DecoderState"

    def add_rows(self, count: int) -> None:
        """Append empty rows."""
        for part in self:
            part.add_rows(count)


class EncoderState:
    """The local encoder's: its stack's, and the byte states of each row's open patch, to be pooled once it is complete.

    Position p of a document lies in slot p mod the number of slots, which grows to hold the longest patch.

    Args:
        stack: the stack's state.
        batch: rows.
        dim: width of a byte state.
        like: a tensor with the device and dtype to use.
    """

    def __init__(self, stack: StackState, *, batch: int, dim: int, like: Tensor) -> None:
        self.stack = stack
        self.open_bytes: Float[Tensor, "B S D"] = like.new_zeros(batch, 64, dim)

    def update(
        self, byte_states: Float[Tensor, "B T D"], layout: Layout | StepLayout
    ) -> tuple[Float[Tensor, "Q L D"], Int[Tensor, "Q L"], int]:
        """Store byte states; return the bytes to pool, the slot of each, and how many slots there are.

        After a step these are the bytes of the patches that it completes, each patch a row with one slot.
        """
        if isinstance(layout, Layout):
            prefill = layout.prefill
            assert prefill is not None, "no rows of the state are named"
            numbers, times = prefill.is_open.nonzero(as_tuple=True)
            self._write(prefill.rows[numbers], layout.positions[numbers, times], byte_states[numbers, times])
            return byte_states, layout.pooled_into, layout.num_slots
        self._write(layout.bytes.rows, layout.bytes.positions[:, 0], byte_states[:, 0])
        if not len(layout.last_bytes):  # no patch is complete
            return byte_states[:0], layout.bytes.positions[:0], 1
        slots, outside = self._pooled_slots(layout.first_bytes, layout.last_bytes)
        return self.open_bytes[layout.patches.rows[:, None], slots], outside, 1

    def _pooled_slots(
        self, firsts: HostInts | Int[Tensor, " Q"], lasts: HostInts | Int[Tensor, " Q"]
    ) -> tuple[Int[Tensor, "Q L"], Int[Tensor, "Q L"]]:
        """Return where the bytes of patches lie, and 1 where a patch has no such byte, else 0."""
        num_slots, device = self.open_bytes.shape[1], self.open_bytes.device
        if isinstance(firsts, Tensor):  # L may not depend on how long they are
            assert isinstance(lasts, Tensor)
            there = firsts[:, None] + torch.arange(num_slots, device=device)
            return there % num_slots, (there > lasts[:, None]).long()
        positions = firsts[:, None] + np.arange(int((lasts - firsts).max()) + 1)
        outside = to_device(torch.from_numpy((positions > lasts[:, None]).astype(np.int64)), device)
        return to_device(torch.from_numpy(positions % num_slots), device), outside

    def make_room(self, longest: int, *, newest: HostInts) -> None:
        """Grow so that a patch of `longest` bytes fits.

        Args:
            longest: bytes of the longest patch.
            newest: position of each row's newest byte.
        """
        num_rows, num_slots, dim = self.open_bytes.shape
        if longest <= num_slots:
            return
        grown = 1 << (longest - 1).bit_length()
        positions = torch.from_numpy(newest[:, None] - np.arange(num_slots)).to(self.open_bytes.device)
        everyone = torch.arange(num_rows, device=self.open_bytes.device)[:, None]
        moved = self.open_bytes.new_zeros(num_rows, grown, dim)
        moved[everyone, positions % grown] = self.open_bytes[everyone, positions % num_slots]
        self.open_bytes = moved

    def add_rows(self, count: int) -> None:
        """Append empty rows."""
        self.stack.add_rows(count)
        self.open_bytes = torch.cat([self.open_bytes, self.open_bytes.new_zeros(count, *self.open_bytes.shape[1:])])

    def nbytes(self) -> int:
        """Return the memory in use, in bytes."""
        return self.stack.nbytes() + self.open_bytes.nbytes

    def _write(self, rows: Int[Tensor, " N"], positions: Int[Tensor, " N"], states: Float[Tensor, "N D"]) -> None:
        self.open_bytes[rows, positions % self.open_bytes.shape[1]] = states.to(self.open_bytes.dtype)


class DecoderState:
    """The local decoder's: its stack's, and keys and values of each row's newest complete patches, which bytes read.

    Patch number n of a document lies in slot n mod the number of slots; one further slot holds zeros, which
    contribute nothing, for bytes that no patch is complete before.

    Args:
        stack: the stack's state.
        batch: rows.
        num_cross: cross-attentions of the decoder.
        shape: of a patch's vectors, `K H E`.
        like: a tensor with the device and dtype to use.
        max_rollback: how many patches can be completed at once, and rolled back.
    """

    def __init__(
        self,
        stack: StackState,
        *,
        batch: int,
        num_cross: int,
        shape: tuple[int, int, int],
        like: Tensor,
        max_rollback: int,
    ) -> None:
        self.stack = stack
        self.num_slots = max_rollback + 1
        self.keys: Float[Tensor, "L Z K H E"] = like.new_zeros(num_cross, batch * (self.num_slots + 1), *shape)
        """Z = rows × slots + 1, row-major; the slot of zeros is last."""
        self.values: Float[Tensor, "L Z K H E"] = torch.zeros_like(self.keys)

    def slots(self, rows: HostInts, patches: HostInts) -> HostInts:
        """Return the slot indices of patches; patch −1 maps to the slot of zeros."""
        slots = np.where(patches >= 0, patches % self.num_slots, self.num_slots)
        return rows * (self.num_slots + 1) + slots

    def slots_there(self, rows: Int[Tensor, " N"], patches: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        """Return the same of numbers on the device."""
        return rows * (self.num_slots + 1) + torch.where(patches >= 0, patches % self.num_slots, self.num_slots)

    def update(
        self,
        index: int,
        completed: tuple[Float[Tensor, "B P K H E"], Float[Tensor, "B P K H E"]] | None,
        layout: Layout | StepLayout,
    ) -> tuple[Float[Tensor, "N M K H E"], Float[Tensor, "N M K H E"], Int[Tensor, "B T"] | None]:
        """Store a cross-attention's keys and values; return those that bytes read, and the slot of each byte.

        After a step these are each byte's own, `N 1 K H E`, without slots.

        Args:
            index: of the cross-attention.
            completed: keys and values of the patches; None: a step completes none.
            layout: of whole rows, or of a step.
        """
        if isinstance(layout, Layout):
            prefill = layout.prefill
            assert prefill is not None, "no rows of the state are named"
            assert completed is not None, "whole rows have patches"
            last = (take(part, prefill.read_last)[:, 0] for part in completed)  # zeros where there is none
            self._write(index, prefill.readable, *last)
            return *completed, layout.read_from
        if completed is not None:
            self._write(index, layout.written, *(part[:, 0] for part in completed))
        return self.keys[index][layout.read_from, None], self.values[index][layout.read_from, None], None

    def add_rows(self, count: int) -> None:
        """Append empty rows."""
        self.stack.add_rows(count)
        self.keys, self.values = (
            torch.cat([part, part.new_zeros(len(part), count * (self.num_slots + 1), *part.shape[2:])], dim=1)
            for part in (self.keys, self.values)
        )

    def nbytes(self) -> int:
        """Return the memory in use, in bytes."""
        return self.stack.nbytes() + self.keys.nbytes + self.values.nbytes

    def _write(
        self, index: int, slots: Int[Tensor, " P"], keys: Float[Tensor, "P K H E"], values: Float[Tensor, "P K H E"]
    ) -> None:
        self.keys[index, slots] = keys.to(self.keys.dtype)
        self.values[index, slots] = values.to(self.values.dtype)
