"""Decoding by PyTorch alone, on any device: entropy model, patcher and BLT in step."""

from collections.abc import Sequence

import numpy as np
import torch

from blt.codec import EOS_ID
from blt.entropy import EntropyState, entropy_of
from blt.lm.finite import require_finite
from blt.lm.language_model import LanguageModel
from blt.model import BLTState, RowPosition
from blt.nn import HostInts
from blt.ops import to_device
from blt.patching import OnlinePatcher, PatcherState, patch
from blt.shapes import Bool, Float, Int, Tensor


class TorchDecoding:
    """Rows of one model; what `blt.lm.session` asks of either way of decoding.

    Args:
        lm: the model.
        max_rollback: how many bytes can be taken back.
    """

    def __init__(self, lm: LanguageModel, *, max_rollback: int = 16) -> None:
        self.lm, self.max_rollback = lm, max_rollback
        entropy_model = lm.entropy_model if lm.patch_rule.needs_entropies else None
        self._entropy = (
            None if entropy_model is None else EntropyState(entropy_model, batch=0, max_rollback=max_rollback)
        )
        self._patcher = OnlinePatcher(lm.patch_rule, batch=0, device=lm.device)
        self._blt = BLTState(lm.blt, batch=0, max_rollback=max_rollback)
        self._free: list[int] = []
        self._rows: HostInts = np.empty(0, dtype=np.int64)  # that read last
        self._steps: list[PatcherState] = []  # before what they read at once, and after each byte
        self._pending: list[tuple[Int[Tensor, " R"], Bool[Tensor, " R"]]] = []  # bytes, and whether they end a patch
        self._before_draft: RowPosition | None = None
        self.ends: Bool[Tensor, "R M"] = torch.zeros(0, 0, dtype=torch.bool, device=lm.device)
        """Whether each byte that was read last has completed a patch."""

    @property
    def num_rows(self) -> int:
        """How many rows there are now."""
        return len(self._blt.newest_byte) - len(self._free)

    def add(self, prompts: Sequence[Int[Tensor, " _"]]) -> tuple[HostInts, Float[Tensor, "R V"]]:
        """Add rows, and prefill each with its prompt, all in one parallel pass.

        Args:
            prompts: ids, BOS included if the model is to see one; of any lengths, but none empty.

        Returns:
            The rows, and the logits of the byte that follows in each, float32.

        Raises:
            ConfigurationError: a prompt without ids, or no prompt.
            ModelFolderError: entropies that are not finite.
        """
        rows = self._take_rows(len(prompts))
        try:
            return rows, self.prefill(rows, prompts)
        except BaseException:  # such as a lack of memory: the rows have read nothing that counts
            self.remove(rows)
            raise

    def prefill(self, rows: HostInts, prompts: Sequence[Int[Tensor, " _"]]) -> Float[Tensor, "R V"]:
        """Prefill empty rows with their prompts."""
        lm = self.lm
        lengths = to_device(torch.tensor([len(ids) for ids in prompts], device="cpu"), lm.device)
        padded = torch.nn.utils.rnn.pad_sequence(list(prompts), batch_first=True, padding_value=EOS_ID)
        byte_ids = to_device(padded, lm.device)
        entropies = None
        if self._entropy is not None:
            entropies = entropy_of(self._entropy.fill(rows, byte_ids, lengths=lengths))
            is_read = torch.arange(byte_ids.shape[1], device=lm.device) < lengths[:, None]
            require_finite(entropies[is_read], "entropies")
        ends = patch(byte_ids, lm.patch_rule, entropies=entropies).ends
        patcher = OnlinePatcher.after(byte_ids, lengths=lengths, rule=lm.patch_rule, entropies=entropies)
        self._patcher.put(patcher.of(None), self._there(rows))
        return self._blt.fill(rows, byte_ids, ends, lengths=lengths)

    def start(self, num_rows: int) -> HostInts:
        """Add empty rows."""
        rows = self._take_rows(num_rows)
        self._blt.restart(rows)
        self._patcher.reset(self._there(rows))
        if self._entropy is not None:
            self._entropy.restart(rows)
        return rows

    def remove(self, rows: HostInts) -> None:
        """Remove rows; their numbers are reused."""
        self._free.extend(int(row) for row in rows)

    def read(self, byte_ids: Int[Tensor, "R M"], rows: HostInts) -> Float[Tensor, "R M V"]:
        """Read bytes of some rows, as many of each; a BOS may only be the first, and at most `max_rollback` at once."""
        self.advance_patcher(byte_ids, rows)
        return self.forward()

    def advance_patcher(self, byte_ids: Int[Tensor, "R M"], rows: HostInts) -> Float[Tensor, "R M V"] | None:
        """Run the entropy model and the patcher alone over the next bytes of some rows; `forward` must follow.

        May be called again for the same rows before `forward`, which then reads all of it at once: at most
        `max_rollback` bytes.

        Returns:
            The entropy model's logits of the byte that follows each, float32; None without entropy model.
        """
        logits = None if self._entropy is None else self._entropy.read(byte_ids, rows)
        there = None if self._is_all(rows) else self._there(rows)
        if not self._pending:
            self._rows, self._steps = rows, [self._patcher.of(there)]
        entropies = None if logits is None else entropy_of(logits)
        ids = to_device(byte_ids, self.lm.device)
        for at in range(byte_ids.shape[1]):
            entropy = None if entropies is None else entropies[:, at]
            self._pending.append((byte_ids[:, at], self._patcher.step(ids[:, at], entropy, rows=there)))
            self._steps.append(self._patcher.of(there))
        return logits

    def forward(self) -> Float[Tensor, "R M V"]:
        """Run the BLT over what the patcher has read; return the logits of the byte that follows each, float32."""
        byte_ids, ends = (torch.stack(parts, dim=1) for parts in zip(*self._pending, strict=True))
        self._pending, self.ends = [], ends
        return self._blt.read(byte_ids, ends, self._rows)

    def draft(self, byte_ids: Int[Tensor, "R M"], rows: HostInts) -> Float[Tensor, "R M V"]:
        """Predict what follows each of some bytes as if they ended no patch, without the global transformer.

        The bytes are not read: `discard_draft` goes back to where the first draft began.
        """
        if self._before_draft is None:
            self._before_draft = self._blt.snapshot(rows)
        return self._blt.read(byte_ids, torch.zeros_like(byte_ids, dtype=torch.bool), rows)

    def discard_draft(self) -> None:
        """Go back to where the first draft began."""
        if self._before_draft is not None:
            self._blt.restore(self._before_draft)
            self._before_draft = None

    def rewind(self, taken_back: HostInts) -> None:
        """Roll back the last bytes of each row that the previous call advanced.

        Only what was read at once can be taken back, at most `max_rollback` bytes, only once, and no BOS.
        """
        rows, kept = self._rows, len(self._steps) - 1 - taken_back
        self._blt.rewind(taken_back=taken_back)
        if self._entropy is not None:
            self._entropy.rewind(rows, taken_back=taken_back)
        numbers, at = torch.arange(len(rows), device=self.lm.device), self._there(kept)
        chosen = (torch.stack(values)[at, numbers] for values in zip(*self._steps, strict=True))
        self._patcher.put(PatcherState(*chosen), self._there(rows))
        self._steps = []

    def num_bytes(self) -> dict[str, int]:
        """Return the memory that the rows take, part by part; the weights are not counted."""
        entropy = 0 if self._entropy is None else self._entropy.num_bytes()
        return {"entropy model": entropy} | self._blt.num_bytes()

    def _take_rows(self, count: int) -> HostInts:
        missing, present = count - len(self._free), len(self._blt.newest_byte)
        if missing > 0:
            self._free.extend(range(present, present + missing))
            self._blt.add_rows(missing)
            self._patcher.append(OnlinePatcher(self.lm.patch_rule, batch=missing, device=self.lm.device))
            if self._entropy is not None:
                self._entropy.add_rows(missing)
        self._free.sort()
        taken, self._free = self._free[:count], self._free[count:]
        return np.array(taken, dtype=np.int64)

    def _is_all(self, rows: HostInts) -> bool:
        return len(rows) == self._patcher.batch and bool((rows == np.arange(len(rows))).all())

    def _there(self, numbers: HostInts) -> Int[Tensor, " R"]:
        return to_device(torch.from_numpy(numbers), self.lm.device)
