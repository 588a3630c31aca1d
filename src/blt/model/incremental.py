"""Incremental decoding of a BLT, a few bytes of some rows at a time; the global transformer runs once per patch."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from blt.codec import BOE_ID, BOS_ID
from blt.model.blt import BLT
from blt.model.hash_embedding import host_hashes, ngram_hashes
from blt.model.layout import Layout, lay_out
from blt.model.patch_memory import OpenPatches, ReadablePatches
from blt.nn import (
    CausalPattern,
    HostInts,
    KeyValueCache,
    KVRecorder,
    StackSteps,
    StepInputs,
    Transformer,
    TransformerConfig,
    WindowPattern,
    dtype_of_states,
)
from blt.ops import in_last_segment, take, without_autocast
from blt.patching.patches import Patches
from blt.shapes import Bool, Float, Int, Tensor


class RowPosition(NamedTuple):
    """Positions of some rows in their documents."""

    rows: HostInts
    newest_byte: HostInts
    """Position of each row's newest byte; −1 if there is none."""
    newest_patch: HostInts
    """Index of each row's newest complete patch; −1 if there is none."""
    patch_start: HostInts
    """Position of the first byte of the patch that is open, or that the next byte opens."""


class BLTState:
    """The decoding state of a BLT, per row.

    A row's position is three numbers; everything else lies in ring buffers indexed by them. A BOS starts a new document
    in its row: nothing read before it is visible any more, as in `lay_out`.

    Args:
        blt: the model; its weights must not change.
        batch: rows, all at their start.
        max_rollback: how many bytes can be read at once, and rolled back.
    """

    def __init__(self, blt: BLT, *, batch: int, max_rollback: int) -> None:
        config = blt.config
        like = blt.hash_embedding.bytes.weight.detach().new_empty(0, dtype=dtype_of_states(blt))
        self.blt, self.max_rollback, self._like = blt, max_rollback, like
        self.newest_byte: HostInts = np.full(batch, -1)
        """See `RowPosition`, for these three."""
        self.newest_patch: HostInts = np.full(batch, -1)
        self.patch_start: HostInts = np.zeros(batch, dtype=np.int64)
        self._hashes = host_hashes(config.hash_embedding)
        self._ids: HostInts = np.zeros(
            (batch, self._hashes.longest + max_rollback), dtype=np.int64
        )  # a ring by position
        theta = config.rope_theta
        self._encoder = self._stack(blt.local_encoder.layers, config.local_encoder, batch=batch, theta=theta)
        self._decoder = self._stack(blt.local_decoder.layers, config.local_decoder, batch=batch, theta=theta)
        theta = config.global_rope_theta or theta
        self._global = self._stack(blt.global_transformer.layers, config.global_transformer, batch=batch, theta=theta)
        self._open_patches = OpenPatches(blt.local_encoder, batch=batch, like=like)
        self._readable = ReadablePatches(blt.local_decoder, batch=batch, like=like, max_rollback=max_rollback)
        self._last: tuple[RowPosition, npt.NDArray[np.bool_]] | None = None  # before what was read last, and its ends

    def _stack(self, layers: Transformer, shape: TransformerConfig, *, batch: int, theta: float) -> StackSteps:
        cache = KeyValueCache(shape, batch=batch, like=self._like, max_rollback=self.max_rollback)
        return StackSteps(layers, cache=cache, head_dim=shape.dim // shape.num_heads, theta=theta)

    @torch.inference_mode()
    @without_autocast
    def read(self, byte_ids: Int[Tensor, "R M"], ends: Bool[Tensor, "R M"], rows: HostInts) -> Float[Tensor, "R M V"]:
        """Run the model on the next bytes of some rows, at most `max_rollback` each; only the first may be a BOS.

        Args:
            byte_ids: the bytes.
            ends: whether each byte completes a patch.
            rows: the rows to advance, without repetition.

        Returns:
            Logits of the byte that follows each, float32.
        """
        # All index arithmetic is done on the host, from the three numbers of each row and the patch ends. So the
        # device is waited for once, here, and everything after is enqueued without looking at its results.
        num, ended = byte_ids.shape[1], ends.cpu().numpy()
        ids = byte_ids.cpu().numpy()
        assert num <= self.max_rollback
        self.restart(rows[ids[:, 0] == BOS_ID])
        self._last = self.snapshot(rows), ended
        positions = self.newest_byte[rows][:, None] + np.arange(1, num + 1)  # R M
        places = self._places(rows.repeat(num), positions.ravel(), positions[:, -1].repeat(num))
        embedded = self._embed(ids, positions, rows)
        byte_states = self._encoder.run(embedded, places)
        longest = int((positions[:, -1] - self.patch_start[rows]).max()) + 1
        self._open_patches.make_room(longest, newest=self.newest_byte)
        self._open_patches.write(places.rows, places.positions, byte_states)
        self.newest_byte[rows] = positions[:, -1]
        numbers = self.newest_patch[rows][:, None] + ended.cumsum(1)  # R M: newest complete patch after each byte
        # Patches completed by these bytes go through the global transformer before any of the bytes is decoded: the
        # byte that completes a patch already attends to it. `numbers` gives each byte its own patch, so later ones
        # stay unseen.
        if ended.any():
            self._complete_patches(ended, positions, numbers, rows)
        sources = self._on_device(self._readable.sources(rows.repeat(num), numbers.ravel()))
        return self._decode(byte_states, places, sources).view(*byte_ids.shape, -1)

    def rewind(self, *, taken_back: HostInts) -> None:
        """Roll back the last `taken_back[r]` bytes of the last read, per row; once per read, and never over a BOS."""
        # Caches need no undo: entries beyond a row's position are masked and later overwritten. Only the three
        # numbers are computed anew, from those before the read and the patch ends among the bytes that stay. The open
        # patch starts one past the last such end; with none, it is the patch that was open before the read.
        assert self._last is not None
        (before, ends), self._last = self._last, None
        num = ends.shape[1]
        kept = num - taken_back
        ends = ends & (np.arange(num) < kept[:, None])
        after_end = before.newest_byte + 1 + num - ends[:, ::-1].argmax(1)  # one past the last remaining end
        after = before._replace(
            newest_byte=before.newest_byte + kept,
            newest_patch=before.newest_patch + ends.sum(1),
            patch_start=np.where(ends.any(1), after_end, before.patch_start),
        )
        self.restore(after)

    def snapshot(self, rows: HostInts) -> RowPosition:
        """Return the positions of some rows."""
        return RowPosition(rows, self.newest_byte[rows], self.newest_patch[rows], self.patch_start[rows])

    def restore(self, snapshot: RowPosition) -> None:
        """Return to a snapshot at most `max_rollback` bytes old; no BOS may have been read since."""
        rows, *numbers = snapshot
        self.newest_byte[rows], self.newest_patch[rows], self.patch_start[rows] = numbers

    def restart(self, rows: HostInts) -> None:
        """Reset some rows to their start."""
        self.newest_byte[rows] = self.newest_patch[rows] = -1
        self.patch_start[rows] = 0

    def _embed(self, ids: HostInts, positions: HostInts, rows: HostInts) -> Float[Tensor, "N D"]:
        num_slots = self._ids.shape[1]
        self._ids[rows[:, None], positions % num_slots] = ids
        back = positions[:, :, None] - np.arange(self._hashes.longest)  # R M n
        preceding = np.where(back >= 0, self._ids[rows[:, None, None], back % num_slots], BOE_ID)
        hashes = self._on_device(self._hashes(preceding).reshape(ids.size, 1, -1))
        embedded = self.blt.hash_embedding(self._on_device(ids.reshape(-1, 1)), hashes)
        return embedded[:, 0].to(self._like.dtype)

    def _complete_patches(
        self, ended: npt.NDArray[np.bool_], positions: HostInts, numbers: HostInts, rows: HostInts
    ) -> None:
        """Run the global transformer on newly completed patches, and make them readable."""
        which, at = ended.nonzero()
        lasts, patch_rows, patches = positions[which, at], rows[which], numbers[which, at]
        follows = np.append(False, which[1:] == which[:-1])  # not the row's first patch completed in this read
        firsts = np.where(follows, np.roll(lasts, 1) + 1, self.patch_start[patch_rows])
        patch_states = self._open_patches.pool(patch_rows, firsts=firsts, lasts=lasts)
        places = self._places(patch_rows, patches, numbers[which, -1])
        latents = self._global.run(patch_states, places)
        self._readable.write(latents, self._on_device(self._readable.sources(patch_rows, patches)))
        self.patch_start[patch_rows] = lasts + 1  # with several patches of a row, the last one's is kept
        self.newest_patch[rows] = numbers[:, -1]

    def _decode(
        self, states: Float[Tensor, "N D"], places: StepInputs, sources: Int[Tensor, " N"]
    ) -> Float[Tensor, "N V"]:
        inputs = self._decoder.prepare(places)
        for index in range(self.blt.config.local_decoder.num_layers):
            states = self._decoder.layer(index, self._readable.read(index, states, sources), inputs)
        return self.blt.logits(self.blt.local_decoder.norm(states)[None])[0]

    @torch.inference_mode()
    @without_autocast
    def fill(
        self,
        rows: HostInts,
        byte_ids: Int[Tensor, "R T"],
        ends: Bool[Tensor, "R T"],
        *,
        lengths: Int[Tensor, " R"],
    ) -> Float[Tensor, "R V"]:
        """Prefill: restart some rows with the first `lengths[r]` (at least 1) bytes of each, in one parallel pass.

        Returns:
            Logits of the byte after each row's last one, float32.
        """
        # Rows are padded to one length and may hold several documents; only the last document of each row, up to its
        # own length, goes on. So ends beyond the length are cleared, then bytes and patches of that document are
        # selected, and of its bytes those after the last patch end: they form the open patch.
        last = lengths[:, None] - 1  # R 1
        within = torch.arange(byte_ids.shape[1], device=byte_ids.device) <= last
        patches = Patches(ends=ends & within)
        layout = lay_out(byte_ids, patches)
        in_document = in_last_segment(layout.documents, lengths=lengths)
        is_open = in_document & (patches.ids == patches.num_complete[:, None])
        patch_in_document = layout.patch_documents == layout.documents.gather(1, last)
        self._set_positions(rows, byte_ids, layout, is_open=is_open, patch_in_document=patch_in_document, last=last)
        states = self._run_whole(
            rows,
            byte_ids,
            layout,
            in_document=in_document,
            is_open=is_open,
            patch_in_document=patch_in_document,
            last=last,
        )
        final = states.gather(1, last[:, :, None].expand(-1, -1, states.shape[2]))  # R 1 D
        return self.blt.logits(final)[:, 0]

    def _set_positions(
        self,
        rows: HostInts,
        byte_ids: Int[Tensor, "R T"],
        layout: Layout,
        *,
        is_open: Bool[Tensor, "R T"],
        patch_in_document: Bool[Tensor, "R P"],
        last: Int[Tensor, "R 1"],
    ) -> None:
        """Set the positions of some rows, and their newest ids."""
        newest = layout.positions.gather(1, last)
        self.newest_byte[rows] = newest[:, 0].cpu().numpy()
        self.newest_patch[rows] = torch.where(patch_in_document, layout.patch_positions, -1).amax(1).cpu().numpy()
        self.patch_start[rows] = torch.where(is_open, layout.positions, newest + 1).amin(1).cpu().numpy()
        back = torch.arange(self._hashes.longest, device=byte_ids.device).clamp_max(newest)  # R n
        positions = (newest - back).cpu().numpy()
        self._ids[rows[:, None], positions % self._ids.shape[1]] = byte_ids.gather(1, last - back).cpu().numpy()

    def _run_whole(
        self,
        rows: HostInts,
        byte_ids: Int[Tensor, "R T"],
        layout: Layout,
        *,
        in_document: Bool[Tensor, "R T"],
        is_open: Bool[Tensor, "R T"],
        patch_in_document: Bool[Tensor, "R P"],
        last: Int[Tensor, "R 1"],
    ) -> Float[Tensor, "R T D"]:
        """Run the full forward up to the decoder's states, and fill the caches with each row's last document."""
        blt, config = self.blt, self.blt.config
        window_of_encoder, window_of_decoder = (
            KVRecorder(WindowPattern(layout.documents, window=shape.window))
            for shape in (config.local_encoder, config.local_decoder)
        )
        causal = KVRecorder(CausalPattern(layout.patch_documents))
        embedded = blt.hash_embedding(byte_ids, ngram_hashes(byte_ids, layout.positions, config.hash_embedding))
        byte_states, patch_states = blt.local_encoder(embedded, layout, attend=window_of_encoder)
        latents = blt.global_transformer(patch_states, layout, attend=causal)
        states = blt.local_decoder(byte_states, latents, layout, attend=window_of_decoder)

        rows_there, positions = self._on_device(rows), layout.positions
        for stack, recording in ((self._encoder, window_of_encoder), (self._decoder, window_of_decoder)):
            stack.cache.fill(rows_there, recording.layers, positions=positions, mask=in_document)
        self._global.cache.fill(rows_there, causal.layers, positions=layout.patch_positions, mask=patch_in_document)
        self._open_patches.make_room(int(is_open.sum(1).max()), newest=self.newest_byte)
        numbers, times = is_open.nonzero(as_tuple=True)
        self._open_patches.write(rows_there[numbers], positions[numbers, times], byte_states[numbers, times])
        can_read = self._on_device((self.newest_patch[rows] >= 0).nonzero()[0])
        if len(can_read):
            sources = self._readable.sources(rows, self.newest_patch[rows])
            readable = take(latents, layout.read_from.gather(1, last))[can_read, 0]
            self._readable.write(readable.to(self._like.dtype), self._on_device(sources)[can_read])
        return states

    def add_rows(self, count: int) -> None:
        """Append rows, all at their start."""
        self.newest_byte = np.concatenate([self.newest_byte, np.full(count, -1)])
        self.newest_patch = np.concatenate([self.newest_patch, np.full(count, -1)])
        self.patch_start = np.concatenate([self.patch_start, np.zeros(count, dtype=np.int64)])
        self._ids = np.concatenate([self._ids, np.zeros((count, self._ids.shape[1]), dtype=np.int64)])
        for stack in (self._encoder, self._global, self._decoder):
            stack.cache.add_rows(count)
        self._open_patches.add_rows(count)
        self._readable.add_rows(count)

    def num_bytes(self) -> dict[str, int]:
        """Return the memory of each part, in bytes."""
        return {
            "local encoder": self._encoder.cache.nbytes() + self._open_patches.states.nbytes,
            "global transformer": self._global.cache.nbytes(),
            "local decoder": self._decoder.cache.nbytes() + self._readable.keys.nbytes + self._readable.values.nbytes,
        }

    def _places(self, rows: HostInts, positions: HostInts, newest: HostInts) -> StepInputs:
        return StepInputs.of(rows, positions, newest, device=self._like.device)

    def _on_device(self, numbers: HostInts) -> Int[Tensor, "*S"]:
        return torch.from_numpy(np.ascontiguousarray(numbers)).to(self._like.device)
