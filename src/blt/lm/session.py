"""A `LanguageModel` read a few bytes of some rows at a time: entropy model, patcher and BLT in step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal

import torch

from blt.codec import BOS_ID
from blt.configuration import check
from blt.decoder import GenerationRow, NativeDecoding, packed_model
from blt.lm.language_model import LanguageModel
from blt.lm.static_decoding import StaticConfig, StaticDecoding
from blt.lm.torch_decoding import TorchDecoding
from blt.nn import HostInts
from blt.shapes import Bool, Float, Int, Tensor

_Stage = Literal["new", "drafted", "advanced", "read", "over"]


class DecodingSession:
    """Rows that have each been read up to some byte, and can go on, each on its own.

    A row is a number. Rows join (`add`) and leave (`remove`) at any byte; what one reads never touches another. A BOS
    starts a new document in its row. The native decoder runs them where it serves the model, else PyTorch.

    Args:
        lm: the model; its weights and its patch rule must stay the same while the session lives.
        max_rollback: how many bytes a step reads at most, and can take back.
        portable: let the native decoder compute the same bits on every processor, somewhat more slowly; PyTorch, where
            there is no such decoder, cannot (`is_native`).
        static: read single bytes by steps of fixed shapes, which are compiled; PyTorch decodes then.
    """

    def __init__(
        self, lm: LanguageModel, *, max_rollback: int = 16, portable: bool = False, static: StaticConfig | None = None
    ) -> None:
        check(max_rollback >= 1, f"max_rollback: at least 1, got {max_rollback}")
        self.lm, self.max_rollback = lm, max_rollback
        self._decoding: NativeDecoding | TorchDecoding
        if static is not None:
            self._decoding = StaticDecoding(lm, max_rollback=max_rollback, config=static)
        else:
            self._decoding = _decoding(lm, max_rollback=max_rollback, portable=portable)
        self._step: DecodingStep | None = None

    @property
    def is_native(self) -> bool:
        """Whether the native decoder runs the rows."""
        return isinstance(self._decoding, NativeDecoding)

    @property
    def num_rows(self) -> int:
        """How many rows there are now."""
        return self._decoding.num_rows

    @property
    def ends(self) -> Bool[Tensor, "R M"]:
        """Whether each byte of the latest `read` has completed a patch."""
        return self._decoding.ends

    @torch.inference_mode()
    def add(self, prompts: Sequence[Int[Tensor, " _"]]) -> tuple[HostInts, Float[Tensor, "R V"]]:
        """Add rows, and prefill each with its prompt, many bytes at a time.

        Args:
            prompts: ids, BOS included if the model is to see one; of any lengths, but none empty.

        Returns:
            The rows, and the logits of the byte that follows in each, float32.

        Raises:
            ConfigurationError: a prompt without ids, or no prompt.
        """
        check(len(prompts) > 0 and all(len(ids) > 0 for ids in prompts), "prompts: at least one, each of at least 1 id")
        return self._decoding.add(prompts)

    def start(self, num_rows: int) -> HostInts:
        """Add empty rows."""
        return self._decoding.start(num_rows)

    @property
    def reads_in_parts(self) -> bool:
        """Whether `prefill` can be given a prompt part by part; the logits are the same bit for bit."""
        return self.is_native

    @torch.inference_mode()
    def prefill(self, rows: HostInts, parts: Sequence[Int[Tensor, " _"]]) -> Float[Tensor, "R V"]:
        """Prefill rows with the next part of their prompts, many bytes at a time.

        Args:
            rows: that have joined by `start`.
            parts: ids, of any lengths, but none empty; a BOS may only be the first of one. Where `reads_in_parts` is
                false, a part is the whole prompt of a row that has read nothing.

        Returns:
            The logits of the byte that follows in each, float32.

        Raises:
            ConfigurationError: a part without ids, or no part.
        """
        check(len(parts) > 0 and all(len(ids) > 0 for ids in parts), "parts: at least one, each of at least 1 id")
        return self._decoding.prefill(rows, parts)

    def remove(self, rows: HostInts) -> None:
        """Remove rows; their numbers are reused."""
        self._decoding.remove(rows)

    @torch.inference_mode()
    def read(self, byte_ids: Int[Tensor, "R M"], rows: HostInts) -> Float[Tensor, "R M V"]:
        """Read the next bytes of some rows, as many of each.

        Args:
            byte_ids: the bytes; a GPU need not be waited for where they are on the host.
            rows: which rows read; each once.

        Returns:
            Logits of the byte that follows each, float32; those of a single byte by a static step are on the host.
        """
        self._end_step()
        if byte_ids.shape[1] == 1:
            return self._decoding.read(byte_ids, rows)
        logits, ends = [], []
        for part in self._parts(byte_ids):
            logits.append(self._decoding.read(part, rows).to(self.lm.device))  # those of a static step lie on the host
            ends.append(self._decoding.ends.to(self.lm.device))
        self._decoding.ends = torch.cat(ends, dim=1)
        return torch.cat(logits, dim=1)

    def step(self, rows: HostInts) -> "DecodingStep":
        """Begin a step of some rows, each once; the step before it is over.

        Raises:
            ConfigurationError: in the step before, the BLT has not read what the patcher has.
        """
        self._end_step()
        self._step = DecodingStep(self._decoding, rows)
        return self._step

    def _end_step(self) -> None:
        if self._step is not None:
            self._step.end()
            self._step = None

    def generate(
        self,
        rows: Sequence[GenerationRow],
        *,
        max_bytes: int,
        max_draft: int = 0,
        min_probability: float = 1.0,
        forced: Sequence[bytes] | None = None,
    ) -> tuple[list[bytes], int]:
        """Choose and read bytes of some rows within the native decoder, until one stops or `max_bytes` are written.

        Of many rows, those whose patch has ended wait for a few passes, until half of them have come so far: the global
        transformer then reads its weights once for all of their patches. Such a row may have written nothing yet.

        Args:
            rows: which rows, and how their bytes are chosen; none is over.
            max_bytes: of each row, at least 1.
            max_draft: most bytes that the entropy model drafts per pass; which bytes are written does
                not depend on it.
            min_probability: the least that the entropy model must give a byte that is drafted.
            forced: of each row `max_bytes` bytes to read in place of what is chosen; for measurements.

        Returns:
            What each row wrote, and in how many passes of the model.

        Raises:
            ConfigurationError: PyTorch runs the rows (`is_native`).
        """
        check(isinstance(self._decoding, NativeDecoding), "rows write by themselves only within the native decoder")
        assert isinstance(self._decoding, NativeDecoding)
        fit = forced is None or [len(one) for one in forced] == [max_bytes] * len(rows)
        check(fit, f"forced: expected {max_bytes} bytes for each of {len(rows)} rows")
        return self._decoding.generate(
            rows, max_bytes=max_bytes, max_draft=max_draft, min_probability=min_probability, forced=forced
        )

    def num_bytes(self) -> dict[str, int]:
        """Return the memory that the rows take, part by part; the weights are not counted."""
        return self._decoding.num_bytes()

    def seconds(self) -> dict[str, float] | None:
        """Return the time spent so far, part by part, patches within the global transformer; None by PyTorch."""
        return self._decoding.seconds() if isinstance(self._decoding, NativeDecoding) else None

    def _parts(self, byte_ids: Int[Tensor, "R M"]) -> Sequence[Int[Tensor, "R m"]]:
        """Cut bytes into what can be read at once: at most `max_rollback`, and each BOS the first of its part."""
        starts = (byte_ids == BOS_ID).any(0).nonzero()[:, 0].tolist()
        cuts = sorted({0, *starts, byte_ids.shape[1]})
        spans = [
            (first, min(first + self.max_rollback, end))
            for start, end in pairwise(cuts)
            for first in range(start, end, self.max_rollback)
        ]
        return [byte_ids[:, first:last] for first, last in spans]


class DecodingStep:
    """One step of some rows: the patcher reads bytes, the BLT reads them all at once, and some may be taken back.

    `advance_patcher` one or more times, `forward` once, then `rewind` at most once; `draft` before all of it. Another
    order, or a step that is over since the session began another or read, is refused.
    """

    def __init__(self, decoding: NativeDecoding | TorchDecoding, rows: HostInts) -> None:
        """Use `DecodingSession.step`."""
        self.rows = rows
        self._decoding = decoding
        self._stage: _Stage = "new"

    @torch.inference_mode()
    def draft(self, byte_ids: Int[Tensor, "R M"]) -> Float[Tensor, "R M V"]:
        """Predict what follows each of some bytes as if they ended no patch, without the global transformer.

        The bytes are not read. A further draft goes on from the one before.

        Returns:
            Logits of the byte that follows each, float32.

        Raises:
            ConfigurationError: the patcher has read already, or the step is over.
        """
        with self._going("draft", after=("new", "drafted"), to="drafted"):
            return self._decoding.draft(byte_ids, self.rows)

    @torch.inference_mode()
    def advance_patcher(self, byte_ids: Int[Tensor, "R M"]) -> Float[Tensor, "R M V"] | None:
        """Run the entropy model and the patcher alone over the next bytes, at most `max_rollback` in all.

        Returns:
            The entropy model's logits of the byte that follows each, float32; None without entropy model.

        Raises:
            ConfigurationError: the BLT has read already, or the step is over.
        """
        with self._going("advance_patcher", after=("new", "drafted", "advanced"), to="advanced") as before:
            if before == "drafted":
                self._decoding.discard_draft()
            return self._decoding.advance_patcher(byte_ids, self.rows)

    @torch.inference_mode()
    def forward(self) -> Float[Tensor, "R M V"]:
        """Run the BLT over what the patcher has read.

        Returns:
            Logits of the byte that follows each, float32.

        Raises:
            ConfigurationError: the patcher has read nothing, or the step is over.
        """
        with self._going("forward", after=("advanced",), to="read"):
            return self._decoding.forward()

    def rewind(self, taken_back: HostInts) -> None:
        """Take back the last bytes of each row, none of them a BOS; this ends the step.

        Raises:
            ConfigurationError: the BLT has read nothing, or the step is over.
        """
        with self._going("rewind", after=("read",), to="over"):
            self._decoding.rewind(taken_back)

    def end(self) -> None:
        """End the step; a draft is forgotten.

        Raises:
            ConfigurationError: the BLT has not read what the patcher has.
        """
        check(self._stage != "advanced", "the patcher has read bytes that the BLT has not; call forward first")
        if self._stage == "drafted":
            self._decoding.discard_draft()
        self._stage = "over"

    @contextmanager
    def _going(self, verb: str, *, after: tuple[_Stage, ...], to: _Stage) -> Iterator[_Stage]:
        """Go on to a stage, and yield the one before; what fails within ends the step."""
        before = self._stage
        check(before in after, f"{verb}: comes after {' or '.join(after)}; this step is {before}")
        self._stage = "over"
        yield before
        self._stage = to


def _decoding(lm: LanguageModel, *, max_rollback: int, portable: bool) -> NativeDecoding | TorchDecoding:
    """Choose how rows are run: the one place that does."""
    packed = packed_model(lm.blt, lm.entropy_model if lm.patch_rule.needs_entropies else None, portable=portable)
    if packed is None:
        return TorchDecoding(lm, max_rollback=max_rollback)
    return NativeDecoding(packed, lm.patch_rule, max_rollback=max_rollback, num_threads=torch.get_num_threads())
