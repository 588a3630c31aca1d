"""The Byte Latent Transformer, one byte per row at a time; the global transformer runs once per patch."""

from typing import Any

import torch

from blt.codec import BOE_ID, BOS_ID
from blt.model.blt import BLT
from blt.model.hash_embedding import hash_rows, longest_ngram, ngram_hashes
from blt.model.layout import Layout, lay_out
from blt.model.open_patch import OpenPatch, ReadablePatch
from blt.nn import CausalPattern, GrowingCache, Recording, WindowCache, WindowPattern, in_last_segment, take
from blt.patching.patches import Patches
from blt.shapes import Bool, Float, Int, Tensor


class BLTState:
    """All that a BLT must remember of each row in order to go on; rows may join and leave at any byte.

    A BOS starts a new document in its row: nothing read before it matters any more, exactly as `lay_out` has it.

    Args:
        blt: the model.
        batch: rows, all at their start.
    """

    def __init__(self, blt: BLT, *, batch: int) -> None:
        self.blt = blt
        config, like = blt.config, blt.hash_embedding.bytes.weight
        num_preceding = longest_ngram(config.hash_embedding) - 1
        self.preceding = torch.full((batch, num_preceding), BOE_ID, device=like.device)
        """Ids that the next byte's n-grams reach back to, newest first."""
        self.encoder_cache = WindowCache(config.local_encoder, batch=batch, like=like)
        self.open_patch = OpenPatch(blt.local_encoder, batch=batch, like=like)
        self.global_cache = GrowingCache(config.global_transformer, batch=batch, like=like)
        self.readable_patch = ReadablePatch(blt.local_decoder, batch=batch, like=like)
        self.decoder_cache = WindowCache(config.local_decoder, batch=batch, like=like)

    @torch.inference_mode()
    def step(self, byte_ids: Int[Tensor, " B"], ends: Bool[Tensor, " B"]) -> Float[Tensor, "B V"]:
        """Read one byte of every row.

        Args:
            byte_ids: the bytes.
            ends: whether each completes a patch.

        Returns:
            Logits of the byte that follows, float32.
        """
        starts = byte_ids == BOS_ID
        if bool(starts.any()):
            self._forget(starts)
        byte_states = self._encode(self._embed(byte_ids))
        self._read_into_patches(byte_states, ends)
        return self.blt.logits(self._decode(byte_states))[:, 0]

    def _forget(self, rows: Bool[Tensor, " B"]) -> None:
        """Start a new document in some rows, given by mask."""
        self.preceding = self.preceding.masked_fill(rows[:, None], BOE_ID)
        for cache in (self.encoder_cache, self.global_cache, self.decoder_cache):
            cache.restart(rows)
        self.open_patch.forget(rows)
        self.readable_patch.forget(rows)

    def _embed(self, byte_ids: Int[Tensor, " B"]) -> Float[Tensor, "B 1 D"]:
        newest_first = torch.cat([byte_ids[:, None], self.preceding], dim=1)
        hashes = hash_rows(newest_first.unbind(1), self.blt.config.hash_embedding)  # B N
        self.preceding = newest_first[:, :-1]
        return self.blt.hash_embedding(byte_ids[:, None], hashes[:, None])

    def _encode(self, embedded: Float[Tensor, "B 1 D"]) -> Float[Tensor, "B 1 D"]:
        encoder, place = self.blt.local_encoder, self.encoder_cache.advance()
        return encoder.layers(embedded, encoder.angles(place.positions), self.encoder_cache.attends(place))

    def _read_into_patches(self, byte_states: Float[Tensor, "B 1 D"], ends: Bool[Tensor, " B"]) -> None:
        """Add a byte to every open patch; where it completes one, think about that patch and make it readable."""
        read = self.open_patch.read(byte_states)
        rows = ends.nonzero()[:, 0]
        if not len(rows):
            return
        patch_states = self.open_patch.states(read.only(rows))  # R 1 G
        self.open_patch.forget(ends)
        transformer, place = self.blt.global_transformer, self.global_cache.advance(rows)
        attends = self.global_cache.attends(place)
        latents = transformer.layers(patch_states, transformer.angles(place.positions), attends)  # R 1 G
        self.readable_patch.write(latents, rows)

    def _decode(self, byte_states: Float[Tensor, "B 1 D"]) -> Float[Tensor, "B 1 D"]:
        place = self.decoder_cache.advance()
        attends = self.decoder_cache.attends(place)
        return self.blt.local_decoder.run(byte_states, place.positions, attends, self.readable_patch.read)

    @classmethod
    @torch.inference_mode()
    def after(
        cls, blt: BLT, byte_ids: Int[Tensor, "B T"], ends: Bool[Tensor, "B T"], *, lengths: Int[Tensor, " B"]
    ) -> tuple["BLTState", Float[Tensor, "B V"]]:
        """Read the first `lengths[b]` bytes of each row b in one parallel pass, at least one.

        Returns:
            The state after them, and the logits of the byte that follows.
        """
        state, last = cls(blt, batch=len(byte_ids)), lengths[:, None] - 1  # last: B 1
        within = torch.arange(byte_ids.shape[1], device=byte_ids.device) <= last
        patches = Patches(ends=ends & within)
        layout = lay_out(byte_ids, patches)
        state._fill_preceding(byte_ids, layout, last=last)
        states = state._fill(byte_ids, layout, patches, last=last)
        final = states.gather(1, last[:, :, None].expand(-1, -1, states.shape[2]))  # B 1 D
        return state, blt.logits(final)[:, 0]

    def _fill_preceding(self, byte_ids: Int[Tensor, "B T"], layout: Layout, *, last: Int[Tensor, "B 1"]) -> None:
        back = torch.arange(self.preceding.shape[1], device=byte_ids.device)
        ids = byte_ids.gather(1, (last - back).clamp_min(0))
        self.preceding = torch.where(back <= layout.positions.gather(1, last), ids, BOE_ID)

    def _fill(
        self, byte_ids: Int[Tensor, "B T"], layout: Layout, patches: Patches, *, last: Int[Tensor, "B 1"]
    ) -> Float[Tensor, "B T D"]:
        """Run the full forward up to the decoder's states, keeping what goes on after each row's last byte."""
        blt = self.blt
        window_of_encoder, window_of_decoder = (
            Recording(WindowPattern(layout.documents, window=shape.window))
            for shape in (blt.config.local_encoder, blt.config.local_decoder)
        )
        causal = Recording(CausalPattern(layout.patch_documents))
        embedded = blt.hash_embedding(byte_ids, ngram_hashes(byte_ids, layout.positions, blt.config.hash_embedding))
        byte_states, patch_states = blt.local_encoder(embedded, layout, attend=window_of_encoder)
        latents = blt.global_transformer(patch_states, layout, attend=causal)
        states = blt.local_decoder(byte_states, latents, layout, attend=window_of_decoder)

        belongs = in_last_segment(layout.documents, lengths=last[:, 0] + 1)
        self.encoder_cache.fill(window_of_encoder.layers, positions=layout.positions, belongs=belongs)
        self.decoder_cache.fill(window_of_decoder.layers, positions=layout.positions, belongs=belongs)
        is_open = patches.ids == patches.num_complete[:, None]
        self.open_patch.fill(byte_states, belongs=belongs & is_open)
        of_document = layout.patch_documents == layout.documents.gather(1, last)
        self.global_cache.fill(causal.layers, positions=layout.patch_positions, belongs=of_document)
        rows = torch.arange(len(byte_ids), device=byte_ids.device)
        self.readable_patch.write(take(latents, layout.read_from.gather(1, last)), rows)
        return states

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only some rows, in the order given."""
        self.preceding = self.preceding[rows]
        for part in self._parts():
            part.select(rows)

    def append(self, other: "BLTState") -> None:
        """Add the rows of another state of the same model after one's own."""
        self.preceding = torch.cat([self.preceding, other.preceding])
        for own, added in zip(self._parts(), other._parts(), strict=True):
            own.append(added)

    def _parts(self) -> tuple[Any, ...]:
        return (self.encoder_cache, self.open_patch, self.global_cache, self.readable_patch, self.decoder_cache)
