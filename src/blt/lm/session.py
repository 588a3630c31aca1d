"""A `ByteLM` read one byte per row at a time: entropy model, patcher and BLT in step."""

from collections.abc import Sequence

import torch

from blt.codec import EOS_ID, VOCABULARY_SIZE
from blt.configuration import check
from blt.entropy import EntropyState
from blt.lm.byte_lm import ByteLM
from blt.model import BLTState
from blt.patching import OnlinePatcher, patch
from blt.shapes import Bool, Float, Int, Tensor


class DecodingSession:
    """Rows that have each been read up to some byte, and can go on.

    Rows are independent of each other: they may stand at any position, leave (`select`) and join (`append`) at any
    byte. A BOS starts a new document in its row.

    Args:
        lm: the model; its patch rule must stay the same while the session lives.
        batch: rows, all at their start, where nothing has been read.
    """

    def __init__(self, lm: ByteLM, *, batch: int) -> None:
        self.lm = lm
        entropy_model = lm.entropy_model if lm.patch_rule.needs_entropies else None
        self._entropy = None if entropy_model is None else EntropyState(entropy_model, batch=batch)
        self._patcher = OnlinePatcher(lm.patch_rule, batch=batch, device=lm.device)
        self._blt = BLTState(lm.blt, batch=batch)
        self.logits: Float[Tensor, "B V"] = torch.zeros(batch, VOCABULARY_SIZE, device=lm.device)
        """Of the byte that follows in each row, float32; all alike before the first byte."""
        self.ends: Bool[Tensor, " B"] = torch.zeros(batch, dtype=torch.bool, device=lm.device)
        """Whether each row's newest byte completed a patch."""

    @classmethod
    @torch.inference_mode()
    def after(cls, lm: ByteLM, prompts: Sequence[Int[Tensor, " _"]]) -> "DecodingSession":
        """Read one prompt per row, all in one parallel pass.

        Args:
            lm: the model.
            prompts: ids, BOS included where it is wanted; of any lengths, but none empty.

        Raises:
            ConfigurationError: a prompt without ids, or no prompt.
        """
        check(len(prompts) > 0 and all(len(ids) > 0 for ids in prompts), "prompts: at least one, each of at least 1 id")
        lengths = torch.tensor([len(ids) for ids in prompts], device=lm.device)
        byte_ids = torch.nn.utils.rnn.pad_sequence(
            [ids.to(lm.device) for ids in prompts], batch_first=True, padding_value=EOS_ID
        )
        session, entropies = cls(lm, batch=len(prompts)), None
        if session._entropy is not None:
            session._entropy, entropies = EntropyState.after(session._entropy.model, byte_ids, lengths=lengths)
        ends = patch(byte_ids, lm.patch_rule, entropies=entropies).ends
        session._patcher = OnlinePatcher.after(byte_ids, lengths=lengths, rule=lm.patch_rule, entropies=entropies)
        session._blt, session.logits = BLTState.after(lm.blt, byte_ids, ends, lengths=lengths)
        session.ends = ends.gather(1, lengths[:, None] - 1)[:, 0]
        return session

    @property
    def batch(self) -> int:
        """How many rows there are now."""
        return len(self.logits)

    @torch.inference_mode()
    def step(self, byte_ids: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        """Read one byte of every row.

        Returns:
            Logits of the byte that follows, which stay at hand as `logits`.
        """
        entropies = None if self._entropy is None else self._entropy.step(byte_ids)
        self.ends = self._patcher.step(byte_ids, entropies)
        self.logits = self._blt.step(byte_ids, self.ends)
        return self.logits

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only some rows, in the order given; a row may be repeated."""
        self._patcher.select(rows)
        self._blt.select(rows)
        if self._entropy is not None:
            self._entropy.select(rows)
        self.logits, self.ends = self.logits[rows], self.ends[rows]

    def append(self, other: "DecodingSession") -> None:
        """Add the rows of another session with the same model after one's own.

        Raises:
            ConfigurationError: the other session has another model.
        """
        check(other.lm is self.lm, "rows of one model cannot join rows of another")
        self._patcher.append(other._patcher)
        self._blt.append(other._blt)
        if self._entropy is not None and other._entropy is not None:
            self._entropy.append(other._entropy)
        self.logits = torch.cat([self.logits, other.logits])
        self.ends = torch.cat([self.ends, other.ends])
