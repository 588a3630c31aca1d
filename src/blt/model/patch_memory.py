"""Patches in decoding: byte states of the open patch, and keys and values of the complete ones that bytes read."""

import numpy as np
import torch

from blt.model.blt import LocalDecoder, LocalEncoder
from blt.model.cross_attention import BytesReadPatch
from blt.nn import HostInts
from blt.ops import attend_within_slots, segment_max
from blt.shapes import Float, Int, Tensor


class OpenPatches:
    """The byte states of each row's open patch, pooled once the patch is complete.

    Position p of a document lies in slot p mod the number of slots, which grows to hold the longest patch.

    Args:
        encoder: the local encoder.
        batch: rows.
        like: a tensor with the device and dtype to use.
    """

    def __init__(self, encoder: LocalEncoder, *, batch: int, like: Tensor) -> None:
        self.encoder = encoder
        self.states: Float[Tensor, "B S D"] = like.new_zeros(batch, 64, encoder.config.local_encoder.dim)

    def make_room(self, longest: int, *, newest: HostInts) -> None:
        """Grow so that a patch of `longest` bytes fits.

        Args:
            longest: bytes of the longest patch.
            newest: position of each row's newest byte.
        """
        num_rows, num_slots, dim = self.states.shape
        if longest <= num_slots:
            return
        grown = 1 << (longest - 1).bit_length()
        positions = torch.from_numpy(newest[:, None] - np.arange(num_slots)).to(self.states.device)
        everyone = torch.arange(num_rows, device=self.states.device)[:, None]
        states = self.states.new_zeros(num_rows, grown, dim)
        states[everyone, positions % grown] = self.states[everyone, positions % num_slots]
        self.states = states

    def write(self, rows: Int[Tensor, " N"], positions: Int[Tensor, " N"], states: Float[Tensor, "N D"]) -> None:
        """Store byte states at positions of their documents."""
        self.states[rows, positions % self.states.shape[1]] = states.to(self.states.dtype)

    def pool(self, rows: HostInts, *, firsts: HostInts, lasts: HostInts) -> Float[Tensor, "P G"]:
        """Return the states of complete patches, from the first byte of each to its last."""
        device, encoder = self.states.device, self.encoder
        positions = firsts[:, None] + np.arange(int((lasts - firsts).max()) + 1)
        slots = torch.from_numpy(positions % self.states.shape[1]).to(device)
        states = self.states[torch.from_numpy(rows).to(device)[:, None], slots]  # P T D
        # Each patch is a row of its own here, with one slot: 0 for its own bytes, 1 (none) for what lies beyond them.
        outside = torch.from_numpy((positions > lasts[:, None]).astype(np.int64)).to(device)  # P T
        asking = encoder.queries(segment_max(states, outside, num_slots=1))  # P 1 K D
        keys, values = encoder.cross_attention.keys_values(states)  # P T H E
        gathered = attend_within_slots(encoder.cross_attention.queries(asking), keys, values, outside)
        return encoder.patch_states(encoder.cross_attention.add(asking, gathered))[:, 0]

    def add_rows(self, count: int) -> None:
        """Append empty rows."""
        self.states = torch.cat([self.states, self.states.new_zeros(count, *self.states.shape[1:])])


class ReadablePatches:
    """Keys and values of the newest complete patches of each row, for every cross-attention of the decoder.

    Patch number n of a document lies in slot n mod the number of slots; one further slot holds zeros, which
    contribute nothing, for bytes that no patch is complete before.

    Args:
        decoder: the local decoder.
        batch: rows.
        like: a tensor with the device and dtype to use.
        max_rollback: how many patches can be completed at once, and rolled back.
    """

    def __init__(self, decoder: LocalDecoder, *, batch: int, like: Tensor, max_rollback: int) -> None:
        shape, num_vectors = decoder.config.local_decoder, decoder.config.queries_per_patch
        heads = (shape.num_heads, shape.dim // shape.num_heads)
        self.num_slots = max_rollback + 1
        self.keys: Float[Tensor, "L Z K H E"] = like.new_zeros(
            len(decoder.cross_attentions), batch * (self.num_slots + 1), num_vectors, *heads
        )
        """Z = rows × slots + 1, row-major; the slot of zeros is last."""
        self.values: Float[Tensor, "L Z K H E"] = torch.zeros_like(self.keys)
        self.decoder = decoder
        self._crosses = [part for part in decoder.cross_attentions if isinstance(part, BytesReadPatch)]

    def sources(self, rows: HostInts, patches: HostInts) -> HostInts:
        """Return the slot indices of patches; patch −1 maps to the slot of zeros."""
        slots = np.where(patches >= 0, patches % self.num_slots, self.num_slots)
        return rows * (self.num_slots + 1) + slots

    def write(self, latents: Float[Tensor, "P G"], sources: Int[Tensor, " P"]) -> None:
        """Let bytes read new patches."""
        vectors = self.decoder.patch_vectors(latents[None])[0]  # P K D
        for index, cross in enumerate(self._crosses):
            keys, values = cross.keys_values(vectors)  # P K H E
            self.keys[index, sources], self.values[index, sources] = (
                keys.to(self.keys.dtype),
                values.to(self.keys.dtype),
            )

    def read(self, index: int, states: Float[Tensor, "N D"], sources: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Apply cross-attention `index`, if the decoder has it, from each byte to its patch."""
        if index >= len(self._crosses):
            return states
        keys, values = self.keys[index], self.values[index]
        return self._crosses[index].read(states[None], keys[None, sources], values[None, sources])[0]

    def add_rows(self, count: int) -> None:
        """Append empty rows."""
        self.keys, self.values = (
            torch.cat([part, part.new_zeros(len(part), count * (self.num_slots + 1), *part.shape[2:])], dim=1)
            for part in (self.keys, self.values)
        )
