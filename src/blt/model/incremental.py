"""Incremental decoding of a BLT, a few bytes of some rows at a time; the global transformer runs once per patch."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from blt.codec import BOE_ID, BOS_ID
from blt.model.blt import BLT
from blt.model.hash_embedding import host_hashes, ngram_hashes
from blt.model.layout import Layout, Prefill, StepLayout, lay_out
from blt.nn import HostInts, StepInputs
from blt.ops import in_last_segment, to_device, without_autocast
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
        self.blt, self.max_rollback = blt, max_rollback
        self.device = blt.hash_embedding.bytes.weight.device
        self.parts = blt.new_states(batch=batch, max_rollback=max_rollback)
        self.newest_byte: HostInts = np.full(batch, -1)
        """See `RowPosition`, for these three."""
        self.newest_patch: HostInts = np.full(batch, -1)
        self.patch_start: HostInts = np.zeros(batch, dtype=np.int64)
        self._hashes = host_hashes(blt.config.hash_embedding)
        self.recent_ids: HostInts = np.zeros((batch, self._hashes.longest + max_rollback), dtype=np.int64)
        """The newest ids of each row: a ring by position."""
        self._last: tuple[RowPosition, npt.NDArray[np.bool_]] | None = None  # before what was read last, and its ends

    @torch.inference_mode()
    @without_autocast
    def read(self, byte_ids: Int[Tensor, "R M"], ends: Bool[Tensor, "R M"], rows: HostInts) -> Float[Tensor, "R M V"]:
        """Run the model on the next bytes of some rows, at most `max_rollback` each; only the first may be a BOS.

        Args:
            byte_ids: the bytes; on the host, they need not be waited for.
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
        longest = int((positions[:, -1] - self.patch_start[rows]).max()) + 1
        self.parts.local_encoder.make_room(longest, newest=self.newest_byte)
        hashes = self._on_device(self._take_ids(ids, positions, rows).reshape(ids.size, 1, -1))
        layout = self._lay_out_step(rows, positions, ended)
        states = self.blt.run(to_device(byte_ids, self.device).reshape(-1, 1), hashes, layout, self.parts)
        return self.blt.logits(states).view(*byte_ids.shape, -1)

    def note(self, ids: HostInts, ended: npt.NDArray[np.bool_], rows: HostInts) -> None:
        """Advance the positions of some rows by one byte each, which the parts' states have taken in already.

        Args:
            ids: the bytes.
            ended: whether each completes a patch.
            rows: the rows.
        """
        self._last = None
        self.restart(rows[ids == BOS_ID])
        self.newest_byte[rows] += 1
        self.newest_patch[rows] += ended
        positions = self.newest_byte[rows]
        self.patch_start[rows[ended]] = positions[ended] + 1
        self.recent_ids[rows, positions % self.recent_ids.shape[1]] = ids

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

    def _take_ids(self, ids: HostInts, positions: HostInts, rows: HostInts) -> HostInts:
        """Remember ids at positions of some rows; return the hashes of each one's n-grams, `R M n`."""
        num_slots = self.recent_ids.shape[1]
        self.recent_ids[rows[:, None], positions % num_slots] = ids
        back = positions[:, :, None] - np.arange(self._hashes.longest)  # R M n
        preceding = np.where(back >= 0, self.recent_ids[rows[:, None, None], back % num_slots], BOE_ID)
        return self._hashes(preceding)

    def _lay_out_step(self, rows: HostInts, positions: HostInts, ended: npt.NDArray[np.bool_]) -> StepLayout:
        """Build the index maps of a step, and advance the rows' positions.

        Args:
            rows: the rows, each once.
            positions: of their bytes, `R M`.
            ended: whether each byte completes a patch, `R M`.
        """
        # Patches completed by these bytes go through the global transformer before any of the bytes is decoded: the
        # byte that completes a patch already attends to it. `numbers` gives each byte its own patch, so later ones
        # stay unseen.
        num, slots = positions.shape[1], self.parts.local_decoder.slots
        numbers = self.newest_patch[rows][:, None] + ended.cumsum(1)  # R M: newest complete patch after each byte
        which, at = ended.nonzero()
        lasts, patch_rows, patches = positions[which, at], rows[which], numbers[which, at]
        follows = np.append(False, which[1:] == which[:-1])[: len(which)]  # not its row's first patch of this step
        firsts = np.where(follows, np.roll(lasts, 1) + 1, self.patch_start[patch_rows])
        self.newest_byte[rows], self.newest_patch[rows] = positions[:, -1], numbers[:, -1]
        self.patch_start[patch_rows] = lasts + 1  # with several patches of a row, the last one's is kept
        return StepLayout(
            bytes=self._step_inputs(rows.repeat(num), positions.ravel(), positions[:, -1].repeat(num)),
            patches=self._step_inputs(patch_rows, patches, numbers[which, -1]),
            first_bytes=firsts,
            last_bytes=lasts,
            written=self._on_device(slots(patch_rows, patches)),
            read_from=self._on_device(slots(rows.repeat(num), numbers.ravel())),
        )

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
        prefill = Prefill(
            rows=self._on_device(rows),
            in_document=in_document,
            is_open=is_open,
            patch_in_document=patch_in_document,
            readable=self._on_device(self.parts.local_decoder.slots(rows, self.newest_patch[rows])),
            read_last=layout.read_from.gather(1, last),
        )
        self.parts.local_encoder.make_room(int(is_open.sum(1).max()), newest=self.newest_byte)
        hashes = ngram_hashes(byte_ids, layout.positions, self.blt.config.hash_embedding)
        states = self.blt.run(byte_ids, hashes, replace(layout, prefill=prefill), self.parts)
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
        self.recent_ids[rows[:, None], positions % self.recent_ids.shape[1]] = (
            byte_ids.gather(1, last - back).cpu().numpy()
        )

    def add_rows(self, count: int) -> None:
        """Append rows, all at their start."""
        self.newest_byte = np.concatenate([self.newest_byte, np.full(count, -1)])
        self.newest_patch = np.concatenate([self.newest_patch, np.full(count, -1)])
        self.patch_start = np.concatenate([self.patch_start, np.zeros(count, dtype=np.int64)])
        self.recent_ids = np.concatenate([self.recent_ids, np.zeros((count, self.recent_ids.shape[1]), dtype=np.int64)])
        self.parts.add_rows(count)

    def num_bytes(self) -> dict[str, int]:
        """Return the memory of each part, in bytes."""
        return {name.replace("_", " "): part.nbytes() for name, part in self.parts._asdict().items()}

    def _step_inputs(self, rows: HostInts, positions: HostInts, newest: HostInts) -> StepInputs:
        return StepInputs.of(rows, positions, newest, device=self.device)

    def _on_device(self, numbers: HostInts) -> Int[Tensor, "*S"]:
        return to_device(torch.from_numpy(np.ascontiguousarray(numbers)), self.device)
