"""What decoding remembers of patches: the bytes of the unfinished one, and the finished ones that bytes may read."""

import numpy as np
import torch

from blt.model.blt import LocalDecoder, LocalEncoder
from blt.model.cross_attention import BytesReadPatch
from blt.nn import HostInts, LinearSteps, are_native
from blt.nn.native.kernels import NativeCrossAttention
from blt.shapes import Float, Int, Tensor


class OpenPatches:
    """The byte states of each row's unfinished patch, from which the patch is made once it is complete.

    Position p of a document lies in slot p mod the number of slots, which grows to hold the longest patch.

    Args:
        encoder: the local encoder.
        batch: rows.
        like: a tensor of the wanted device and type.
    """

    def __init__(self, encoder: LocalEncoder, *, batch: int, like: Tensor) -> None:
        cross = encoder.cross_attention
        self.encoder = encoder
        self.states: Float[Tensor, "B S D"] = like.new_zeros(batch, 64, encoder.config.local_encoder.dim)
        self._to_queries = LinearSteps(encoder.to_queries)
        self._query = LinearSteps(cross.query, norm=cross.query_norm)
        self._key, self._value = (LinearSteps(part, norm=cross.source_norm) for part in (cross.key, cross.value))
        self._output = LinearSteps(cross.output)
        self._to_global = None if encoder.to_global is None else LinearSteps(encoder.to_global)

    def make_room(self, longest: int, *, newest: HostInts) -> None:
        """Be able to hold so many bytes of a patch.

        Args:
            longest: how many.
            newest: position of the newest byte of every row.
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
        """Add bytes at positions of their documents."""
        self.states[rows, positions % self.states.shape[1]] = states.to(self.states.dtype)

    def pool(self, rows: HostInts, *, firsts: HostInts, lasts: HostInts) -> Float[Tensor, "P G"]:
        """Return the states of complete patches, from the first byte of each to its last."""
        device, cross = self.states.device, self.encoder.cross_attention
        heads, k = cross.num_heads, self.encoder.config.queries_per_patch
        positions = firsts[:, None] + np.arange(int((lasts - firsts).max()) + 1)
        outside = torch.from_numpy(positions > lasts[:, None]).to(device)  # P T
        slots = torch.from_numpy(positions % self.states.shape[1]).to(device)
        states = self.states[torch.from_numpy(rows).to(device)[:, None], slots]  # P T D
        num, length, dim = states.shape
        pooled = states.masked_fill(outside[:, :, None], -torch.inf).amax(1)  # P D
        asking = self._to_queries(pooled).view(num * k, dim)
        queries = self._query(asking).view(num, k, heads, -1).transpose(1, 2)  # P H K E
        flat = states.view(num * length, dim)
        keys, values = (part(flat).view(num, length, heads, -1).transpose(1, 2) for part in (self._key, self._value))
        scores = queries @ keys.transpose(2, 3) * keys.shape[-1] ** -0.5  # P H K T
        weights = scores.float().masked_fill(outside[:, None, None], -torch.inf).softmax(-1).to(values.dtype)
        gathered = (weights @ values).transpose(1, 2).reshape(num * k, dim)
        vectors = asking * cross.residual_scale + self._output(gathered)
        joined = vectors.view(num, k * dim)
        return joined if self._to_global is None else self._to_global(joined)

    def add_rows(self, count: int) -> None:
        """Make room for more rows."""
        self.states = torch.cat([self.states, self.states.new_zeros(count, *self.states.shape[1:])])


class ReadablePatches:
    """Keys and values of the newest complete patches of each row, for every cross-attention of the decoder.

    Patch number n of a document lies in slot n mod the number of slots; one further slot holds zeros, which say
    nothing, for bytes that no patch is complete before.

    Args:
        decoder: the local decoder.
        batch: rows.
        like: a tensor of the wanted device and type.
        max_rollback: how many patches can be completed at once, and taken back.
    """

    def __init__(self, decoder: LocalDecoder, *, batch: int, like: Tensor, max_rollback: int) -> None:
        shape, num_vectors = decoder.config.local_decoder, decoder.config.queries_per_patch
        heads = (shape.num_heads, shape.dim // shape.num_heads)
        self.num_slots = max_rollback + 1
        self.keys: Float[Tensor, "L Z K H E"] = like.new_zeros(
            len(decoder.cross_attentions), batch * (self.num_slots + 1), num_vectors, *heads
        )
        """Z: row by row, slot by slot, the slot of zeros last."""
        self.values: Float[Tensor, "L Z K H E"] = torch.zeros_like(self.keys)
        self._from_global = LinearSteps(decoder.from_global)
        self._crosses = [part for part in decoder.cross_attentions if isinstance(part, BytesReadPatch)]
        self._keys_values = [
            [LinearSteps(part, norm=cross.source_norm) for part in (cross.key, cross.value)] for cross in self._crosses
        ]
        self._native = [_native(cross) for cross in self._crosses] if are_native(decoder, like) else None

    def sources(self, rows: HostInts, patches: HostInts) -> HostInts:
        """Return where the patches of those numbers lie; number −1 means that there is none."""
        slots = np.where(patches >= 0, patches % self.num_slots, self.num_slots)
        return rows * (self.num_slots + 1) + slots

    def write(self, latents: Float[Tensor, "P G"], sources: Int[Tensor, " P"]) -> None:
        """Let bytes read new patches."""
        vectors = self._from_global(latents).reshape(-1, self.keys.shape[-1] * self.keys.shape[-2])  # P·K D
        for index, (key, value) in enumerate(self._keys_values):
            for stored, part in ((self.keys, key), (self.values, value)):
                stored[index, sources] = part(vectors).view(len(latents), *stored.shape[2:]).to(stored.dtype)

    def read(self, index: int, states: Float[Tensor, "N D"], sources: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Add to each byte what its patch says, by one of the cross-attentions, if there is such a one."""
        if index >= len(self._crosses):
            return states
        keys, values = self.keys[index], self.values[index]
        if self._native is not None:
            return self._native[index](states, sources, keys=keys, values=values)
        return self._crosses[index].read(states[None], keys[None, sources], values[None, sources])[0]

    def add_rows(self, count: int) -> None:
        """Make room for more rows."""
        self.keys, self.values = (
            torch.cat([part, part.new_zeros(len(part), count * (self.num_slots + 1), *part.shape[2:])], dim=1)
            for part in (self.keys, self.values)
        )


def _native(cross: BytesReadPatch) -> NativeCrossAttention:
    return NativeCrossAttention(
        norm=cross.query_norm,
        query=cross.query,
        output=cross.output,
        num_heads=cross.num_heads,
        kept=cross.residual_scale,
    )
