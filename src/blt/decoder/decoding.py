"""Rows that the native decoder reads; what `blt.lm.session` asks of either way of decoding."""

import ctypes
import weakref
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from blt.codec import BOS_ID
from blt.decoder import library as c
from blt.decoder.generation import GenerationRow
from blt.decoder.packed import PackedModel
from blt.errors import ConfigurationError
from blt.nn import HostInts
from blt.patching import (
    ByteRule,
    EntropyAndRiseRule,
    EntropyRiseRule,
    EntropyRule,
    PatchRule,
    SpaceRule,
    StaticRule,
)
from blt.shapes import Bool, Float, Int, Tensor

PREFILL_BYTES = 512
"""How many bytes of prompts are read at once."""

_PARTS = ("entropy model", "local encoder", "global transformer", "local decoder")
_KINDS = (EntropyRule, EntropyRiseRule, EntropyAndRiseRule, SpaceRule, StaticRule, ByteRule)


def kernels() -> str | None:
    """Return what the native decoder was compiled for, or None where there is none."""
    library = c.library()
    return None if library is None else str(library.blt_kernels().decode())


class NativeDecoding:
    """Rows of one model.

    Args:
        packed: the model.
        rule: where patches end.
        max_rollback: how many bytes can be taken back.
        num_threads: how many threads compute, at most.
    """

    def __init__(self, packed: PackedModel, rule: PatchRule, *, max_rollback: int, num_threads: int) -> None:
        self.max_rollback = max_rollback
        self.num_rows = 0
        self.ends: Bool[Tensor, "R M"] = torch.zeros(0, 0, dtype=torch.bool)
        self._packed, self._library = packed, packed.library  # the decoder points to the model
        self._has_entropies = rule.needs_entropies
        self._pending: list[npt.NDArray[np.uint8]] = []  # ends of what the patcher has read
        handle = ctypes.c_void_p()
        self._call(
            "blt_decoder_new", packed.handle, ctypes.byref(_rule(rule)), max_rollback, num_threads, ctypes.byref(handle)
        )
        self._handle = handle
        self._close = weakref.finalize(self, _free, self._library, handle, packed)

    def add(
        self, prompts: Sequence[Int[Tensor, " _"]], *, ends: Sequence[Bool[Tensor, " _"]] | None = None
    ) -> tuple[HostInts, Float[Tensor, "R V"]]:
        """Add rows, and prefill each with its prompt, many bytes at a time.

        Args:
            prompts: ids.
            ends: where patches end, if the patch rule is not asked.
        """
        rows = self.start(len(prompts))
        try:
            return rows, self._fill(rows, prompts, ends)
        except BaseException:  # such as a lack of memory: the rows have read nothing that counts
            self.remove(rows)
            raise

    def _fill(
        self, rows: HostInts, prompts: Sequence[Int[Tensor, " _"]], ends: Sequence[Bool[Tensor, " _"]] | None
    ) -> Float[Tensor, "R V"]:
        """Prefill rows with their prompts."""
        logits = np.empty((len(prompts), self._packed.vocabulary), dtype=np.float32)
        ids = [np.ascontiguousarray(prompt.cpu().numpy(), dtype=np.int64) for prompt in prompts]
        for portion in _portions(ids):
            parts = [ids[number][part] for number, part in portion]
            given = None if ends is None else _joined_ends([ends[number][part] for number, part in portion])
            are_last = [part.stop == len(ids[number]) for number, part in portion]
            numbers = [number for number, _ in portion]
            found = self._read(rows[numbers], parts, wanted=c.LAST if any(are_last) else c.NONE, given=given)[1]
            for at, number in enumerate(numbers):
                if are_last[at]:
                    logits[number] = found[at]
        self.ends = torch.zeros(0, 0, dtype=torch.bool)
        return torch.from_numpy(logits)

    def prefill(self, rows: HostInts, parts: Sequence[Int[Tensor, " _"]]) -> Float[Tensor, "R V"]:
        """Prefill rows with the next part of their prompts; a BOS may only be the first of one."""
        ids = [np.ascontiguousarray(part.cpu().numpy(), dtype=np.int64) for part in parts]
        logits = self._read(rows, ids, wanted=c.LAST)[1]
        self.ends = torch.zeros(0, 0, dtype=torch.bool)
        return torch.from_numpy(logits)

    def start(self, num_rows: int) -> HostInts:
        """Add empty rows."""
        rows = np.empty(num_rows, dtype=np.int64)
        self._call("blt_decoder_start", self._handle, num_rows, rows.ctypes.data)
        self.num_rows += num_rows
        return rows

    def remove(self, rows: HostInts) -> None:
        """Remove rows."""
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        self._call("blt_decoder_leave", self._handle, rows.ctypes.data, len(rows))
        self.num_rows -= len(rows)

    def read(
        self, byte_ids: Int[Tensor, "R M"], rows: HostInts, *, ends: Bool[Tensor, "R M"] | None = None
    ) -> Float[Tensor, "R M V"]:
        """Read bytes of some rows, as many of each; a BOS may only be the first.

        Args:
            byte_ids: the bytes.
            rows: which rows read.
            ends: where patches end, if the patch rule is not asked.
        """
        given = None if ends is None else _joined_ends(list(ends))
        found, logits = self._read(rows, list(byte_ids.numpy()), wanted=c.ALL, given=given)
        self.ends = torch.from_numpy(found.reshape(byte_ids.shape).astype(bool))
        return torch.from_numpy(logits).view(*byte_ids.shape, -1)

    def advance_patcher(self, byte_ids: Int[Tensor, "R M"], rows: HostInts) -> Float[Tensor, "R M V"] | None:
        """Run the entropy model and the patcher alone."""
        reading, kept = _reading(rows, list(byte_ids.numpy()))
        ends = np.empty(tuple(byte_ids.shape), dtype=np.uint8)
        logits = np.empty((*byte_ids.shape, self._packed.vocabulary), dtype=np.float32) if self._has_entropies else None
        out = None if logits is None else logits.ctypes.data
        self._call("blt_decoder_advance_patcher", self._handle, ctypes.byref(reading), ends.ctypes.data, out)
        del kept
        self._pending.append(ends)
        return None if logits is None else torch.from_numpy(logits)

    def forward(self) -> Float[Tensor, "R M V"]:
        """Run the BLT over what the patcher has read."""
        if not self._pending:
            raise ConfigurationError("there is nothing to forward: no bytes have been read by the patcher")
        ends, self._pending = np.concatenate(self._pending, axis=1), []
        logits = np.empty((*ends.shape, self._packed.vocabulary), dtype=np.float32)
        self._call("blt_decoder_forward", self._handle, ends.size, logits.ctypes.data)
        self.ends = torch.from_numpy(ends.astype(bool))
        return torch.from_numpy(logits)

    def draft(self, byte_ids: Int[Tensor, "R M"], rows: HostInts) -> Float[Tensor, "R M V"]:
        """Read bytes as if they ended no patch, until the draft is discarded."""
        reading, kept = _reading(rows, list(byte_ids.numpy()))
        logits = np.empty((*byte_ids.shape, self._packed.vocabulary), dtype=np.float32)
        self._call("blt_decoder_draft", self._handle, ctypes.byref(reading), logits.ctypes.data)
        del kept
        return torch.from_numpy(logits)

    def discard_draft(self) -> None:
        """Go back to where the draft began."""
        self._call("blt_decoder_discard_draft", self._handle)

    def rewind(self, taken_back: HostInts) -> None:
        """Take back the last bytes of each row that read."""
        taken_back = np.ascontiguousarray(taken_back, dtype=np.int64)
        self._call("blt_decoder_rewind", self._handle, taken_back.ctypes.data, len(taken_back))

    def generate(
        self,
        rows: Sequence[GenerationRow],
        *,
        max_bytes: int,
        max_draft: int,
        min_probability: float,
        forced: Sequence[bytes] | None = None,
    ) -> tuple[list[bytes], int]:
        """Continue rows until one of them stops, or has written `max_bytes`.

        Args:
            rows: which.
            max_bytes: of each row.
            max_draft: most bytes to draft at once.
            min_probability: of a byte that is drafted.
            forced: of each row `max_bytes` bytes to read in place of what is chosen.

        Returns:
            What each row wrote, and in how many passes.
        """
        numbers = np.array([row.row for row in rows], dtype=np.int64)
        samplings = (c.Sampling * len(rows))(*[row.sampling for row in rows])
        logits = np.stack([row.logits for row in rows])
        written = np.empty((len(rows), max_bytes), dtype=np.uint8)
        read_instead = None if forced is None else np.frombuffer(b"".join(forced), dtype=np.uint8)
        counts, num_passes = np.empty(len(rows), dtype=np.int64), c.Size()
        generation = c.Generation(
            numbers.ctypes.data,
            samplings,
            *(None if array is None else array.ctypes.data for array in (logits, written, counts, read_instead)),
            *(len(rows), max_bytes, max_draft),
            min_probability,
        )
        self._call("blt_decoder_generate", self._handle, ctypes.byref(generation), ctypes.byref(num_passes))
        for number, row in enumerate(rows):
            row.note(samplings[number], logits[number])
        data = [bytes(found[:count]) for found, count in zip(written, counts.tolist(), strict=True)]
        return data, int(num_passes.value)

    def num_bytes(self) -> dict[str, int]:
        """Return the memory that the rows take, part by part."""
        found = np.zeros(len(_PARTS), dtype=np.int64)
        self._call("blt_decoder_memory", self._handle, found.ctypes.data)
        return dict(zip(_PARTS, found.tolist(), strict=True))

    def seconds(self) -> dict[str, float]:
        """Return the time spent so far, part by part."""
        found = np.zeros(len(_PARTS))
        self._call("blt_decoder_seconds", self._handle, found.ctypes.data)
        return dict(zip(_PARTS, found.tolist(), strict=True))

    def _read(
        self,
        rows: HostInts,
        parts: Sequence[npt.NDArray[np.int64]],
        *,
        wanted: int,
        given: npt.NDArray[np.uint8] | None = None,
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        reading, kept = _reading(rows, parts)
        ends = np.empty(reading.num_ids, dtype=np.uint8) if given is None else given
        num_logits = {c.ALL: reading.num_ids, c.LAST: len(parts), c.NONE: 0}[wanted]
        logits = np.empty((num_logits, self._packed.vocabulary), dtype=np.float32)
        self._call(
            "blt_decoder_read",
            self._handle,
            ctypes.byref(reading),
            wanted,
            given is not None,
            ends.ctypes.data,
            logits.ctypes.data,
        )
        del kept
        return ends, logits

    def _call(self, name: str, *arguments: object) -> None:
        c.call(self._library, name, *arguments)


def _free(library: ctypes.CDLL, handle: ctypes.c_void_p, packed: PackedModel) -> None:
    """Free a decoder; its model stays until then."""
    library.blt_decoder_free(handle)
    del packed


def _reading(rows: HostInts, parts: Sequence[npt.NDArray[np.int64]]) -> tuple[c.Reading, tuple[object, ...]]:
    """Describe what is to be read; what stands second must live as long."""
    if len(rows) != len(parts):
        raise ConfigurationError(f"byte_ids: {len(parts)} rows of them, for {len(rows)} rows")
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    counts = np.array([len(part) for part in parts], dtype=np.int64)
    ids = np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts), dtype=np.int64)
    reading = c.Reading(rows.ctypes.data, counts.ctypes.data, ids.ctypes.data, len(rows), len(ids))
    return reading, (rows, counts, ids)


def _joined_ends(parts: Sequence[Bool[Tensor, " _"]]) -> npt.NDArray[np.uint8]:
    return np.concatenate([part.numpy() for part in parts]).astype(np.uint8)


def _portions(prompts: Sequence[npt.NDArray[np.int64]]) -> Iterator[list[tuple[int, slice]]]:
    """Cut prompts into what is read at once: about `PREFILL_BYTES`, and each BOS the first of its part.

    Yields:
        Numbers of prompts, and a part of each.
    """
    queues = []
    for ids in prompts:
        cuts = sorted({0, *np.flatnonzero(ids == BOS_ID).tolist(), *range(0, len(ids), PREFILL_BYTES), len(ids)})
        queues.append([slice(first, last) for first, last in pairwise(cuts)])
    while any(queues):
        portion: list[tuple[int, slice]] = []
        room = PREFILL_BYTES
        for number, queue in enumerate(queues):
            if queue and (not portion or queue[0].stop - queue[0].start <= room):
                portion.append((number, queue.pop(0)))
                room -= portion[-1][1].stop - portion[-1][1].start
        yield portion


def _rule(rule: PatchRule) -> c.Rule:
    return c.Rule(
        _KINDS.index(type(rule)),
        getattr(rule, "threshold", 0.0),
        getattr(rule, "rise_threshold", 0.0),
        getattr(rule, "length", 1),
        rule.max_length or 0,
    )
