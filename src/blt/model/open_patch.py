"""What one-byte-at-a-time decoding remembers of patches: the unfinished one, and the one that bytes may read."""

import torch

from blt.model.blt import LocalDecoder, LocalEncoder
from blt.model.cross_attention import BytesReadPatch
from blt.nn import GrowingCache, Place, TransformerConfig
from blt.shapes import Bool, Float, Int, Tensor


class OpenPatch:
    """The bytes of each row's unfinished patch: their largest values, and the keys and values that its queries need.

    Args:
        encoder: the local encoder.
        batch: rows, all without a byte.
        like: a tensor of the wanted device and type.
    """

    def __init__(self, encoder: LocalEncoder, *, batch: int, like: Tensor) -> None:
        shape = encoder.config.local_encoder
        one_layer = TransformerConfig(dim=shape.dim, num_layers=1, num_heads=shape.num_heads)
        self.encoder = encoder
        self.bytes = GrowingCache(one_layer, batch=batch, like=like)
        self.largest: Float[Tensor, "B D"] = like.new_zeros(batch, shape.dim)

    def forget(self, rows: Bool[Tensor, " B"]) -> None:
        """Let go of the bytes read so far, in the rows of a mask."""
        self.bytes.restart(rows)

    def read(self, byte_states: Float[Tensor, "B 1 D"], rows: Int[Tensor, " R"] | None = None) -> Place:
        """Add a byte to the patches of some rows, in ascending order; to all by default."""
        place = self.bytes.advance(rows)
        keys, values = self.encoder.cross_attention.keys_values(byte_states[:, 0])  # R H E
        self.bytes.write(0, place, keys, values)
        state, is_first = byte_states[:, 0], place.positions == 0
        largest = torch.where(is_first, state, torch.maximum(self.largest[place.rows], state))
        self.largest = self.largest.index_copy(0, place.rows, largest)
        return place

    def states(self, place: Place) -> Float[Tensor, "R 1 G"]:
        """Give the states of the patches of some rows, as they would be if they ended here."""
        cross = self.encoder.cross_attention
        asking = self.encoder.queries(self.largest[place.rows, None])  # R 1 K D
        scaled = cross.queries(asking)[:, 0]  # R K H E
        gathered = self.bytes.read(0, place, scaled, scale=1.0)
        return self.encoder.patch_states(cross.add(asking, gathered[:, None]))

    def fill(self, byte_states: Float[Tensor, "B T D"], *, belongs: Bool[Tensor, "B T"]) -> None:
        """Take over the bytes of each row's open patch from a pass over whole rows, as if read one by one."""
        keys_values = self.encoder.cross_attention.keys_values(byte_states)
        self.bytes.fill([keys_values], positions=belongs.long().cumsum(1) - 1, belongs=belongs)
        self.largest = byte_states.masked_fill(~belongs[:, :, None], float("-inf")).amax(1)

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only some rows, in the order given."""
        self.bytes.select(rows)
        self.largest = self.largest[rows]

    def append(self, other: "OpenPatch") -> None:
        """Add the rows of another open patch after one's own."""
        self.bytes.append(other.bytes)
        self.largest = torch.cat([self.largest, other.largest])


class ReadablePatch:
    """Keys and values of the patch that each row's bytes may read, for every cross-attention of the decoder.

    Zeros where there is none: they say nothing.

    Args:
        decoder: the local decoder.
        batch: rows, all without a patch.
        like: a tensor of the wanted device and type.
    """

    def __init__(self, decoder: LocalDecoder, *, batch: int, like: Tensor) -> None:
        shape = decoder.config.local_decoder
        heads = (shape.num_heads, shape.dim // shape.num_heads)
        num_vectors = decoder.config.queries_per_patch
        self.decoder = decoder
        self.keys: Float[Tensor, "L B 1 K H E"] = like.new_zeros(
            len(decoder.cross_attentions), batch, 1, num_vectors, *heads
        )
        self.values: Float[Tensor, "L B 1 K H E"] = torch.zeros_like(self.keys)

    def forget(self, rows: Bool[Tensor, " B"]) -> None:
        """Leave nothing to read, in the rows of a mask."""
        self.keys[:, rows] = 0
        self.values[:, rows] = 0

    def write(self, latents: Float[Tensor, "R 1 G"], rows: Int[Tensor, " R"]) -> None:
        """Let the bytes of some rows read a new patch from now on."""
        vectors = self.decoder.patch_vectors(latents)  # R 1 K D
        for index in range(len(self.keys)):
            self.keys[index, rows], self.values[index, rows] = self._cross_attention(index).keys_values(vectors)

    def read(self, index: int, byte_states: Float[Tensor, "B 1 D"]) -> Float[Tensor, "B 1 D"]:
        """Add to each row's byte what its patch says, by one of the cross-attentions."""
        return self._cross_attention(index).read(byte_states, self.keys[index], self.values[index])

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only some rows, in the order given."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]

    def append(self, other: "ReadablePatch") -> None:
        """Add the rows of another one of the same decoder after one's own."""
        self.keys = torch.cat([self.keys, other.keys], dim=1)
        self.values = torch.cat([self.values, other.values], dim=1)

    def _cross_attention(self, index: int) -> BytesReadPatch:
        cross = self.decoder.cross_attentions[index]
        assert isinstance(cross, BytesReadPatch)
        return cross
