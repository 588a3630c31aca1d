"""Log-probabilities of continuations given prompts: what noise, probes and the evaluation harness ask of a model.

`Scorer` is all that they ask, so a model with a tokenizer can be measured by the same code: whatever joins a prompt and
its continuation, the bytes are the same, and bits per byte compare.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch

from blt.codec import BYTE_OFFSET, EOS_ID, encode
from blt.data.document_batches import MAX_IDS_PER_BATCH
from blt.errors import ModelFolderError
from blt.evaluation.expectations import next_byte_logits
from blt.generation import generate_batch
from blt.lm import LanguageModel, require_finite
from blt.loss import NOT_PREDICTED, next_byte_loss, next_byte_targets
from blt.shapes import Int, Tensor

_ROWS_TO_WRITE = 32

Pair = tuple[bytes, bytes]
"""A prompt and its continuation."""


@runtime_checkable
class Scorer(Protocol):
    """A model that tells how likely a continuation is."""

    def logprobs(self, pairs: Sequence[Pair]) -> list[float]:
        """Return the natural logarithm of the probability of all bytes of each continuation, given its prompt.

        The prompt is the start of a document. Neither holds the document's end.
        """


@runtime_checkable
class Writer(Protocol):
    """A model that continues prompts."""

    def continuations(self, prompts: Sequence[bytes], *, stop: bytes, max_bytes: int) -> list[bytes]:
        """Continue each prompt greedily until `stop`, which is left out, the end of the document, or `max_bytes`."""


class ScoredContinuation(NamedTuple):
    """What a model says of one continuation."""

    logprob: float
    """Natural logarithm of its probability."""
    is_greedy: bool
    """Whether greedy decoding would write it."""


@dataclass(frozen=True)
class ByteScorer:
    """A `LanguageModel` as a `Scorer` and a `Writer`."""

    lm: LanguageModel
    max_rows: int | None = field(default=None, kw_only=True)
    """Scored at once at most; a fixed number of ids if not given."""

    def logprobs(self, pairs: Sequence[Pair]) -> list[float]:
        """Return the natural logarithm of the probability of each continuation."""
        return [scored.logprob for scored in score_continuations(self.lm, pairs, max_rows=self.max_rows)]

    def continuations(self, prompts: Sequence[bytes], *, stop: bytes, max_bytes: int) -> list[bytes]:
        """Continue each prompt greedily; prompts of any bytes, and any bytes may be written."""
        found = []
        for start in range(0, len(prompts), _ROWS_TO_WRITE):
            some = generate_batch(
                self.lm, prompts[start : start + _ROWS_TO_WRITE],
                max_new_bytes=max_bytes, temperature=0, stop=stop, valid_utf8=False,
            )  # fmt: skip
            for generation in some:
                if generation.error is not None:
                    raise ModelFolderError(f"a prompt cannot be continued: {generation.error}")
                found.append(generation.new_bytes)
        return found


class _Row(NamedTuple):
    """A document's start, of which the end is to be predicted."""

    byte_ids: Int[Tensor, " T"]
    num_given: int
    """Ids that are given: BOS and the prompt."""


def score_continuations(
    lm: LanguageModel, pairs: Sequence[Pair], *, max_rows: int | None = None
) -> list[ScoredContinuation]:
    """Score continuations, the longest rows first.

    Args:
        lm: the model.
        pairs: prompts and continuations; an empty continuation is certain, and greedy.
        max_rows: rows at once at most; as many as fit a fixed number of ids if not given.

    Raises:
        ModelFolderError: the model's logits are no numbers.
    """
    rows = [_Row(encode(prompt + target, bos=True), 1 + len(prompt)) for prompt, target in pairs]
    results = [ScoredContinuation(0.0, True)] * len(rows)
    numbers = sorted(range(len(rows)), key=lambda number: -len(rows[number].byte_ids))
    while numbers:
        count = max_rows or max(1, MAX_IDS_PER_BATCH // len(rows[numbers[0]].byte_ids))
        some, numbers = numbers[:count], numbers[count:]
        for number, result in zip(some, _score_together(lm, [rows[n] for n in some]), strict=True):
            results[number] = result
    return results


@torch.inference_mode()
def _score_together(lm: LanguageModel, rows: Sequence[_Row]) -> list[ScoredContinuation]:
    lengths = torch.tensor([len(row.byte_ids) for row in rows], device="cpu")
    given = torch.tensor([row.num_given for row in rows], device="cpu")
    documents = [torch.cat([row.byte_ids, row.byte_ids.new_tensor([EOS_ID])]) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(documents, batch_first=True, padding_value=EOS_ID)
    byte_ids, targets = next_byte_targets(padded, lengths=lengths)
    targets[torch.arange(1, padded.shape[1]) < given[:, None]] = NOT_PREDICTED
    is_target = targets != NOT_PREDICTED
    logits = next_byte_logits(lm, byte_ids.to(lm.device), lengths.to(lm.device)).cpu()
    require_finite(logits[is_target], "logits")
    sums = -next_byte_loss(logits, targets, reduction="none").double().sum(1)
    logits[..., [special for special in range(BYTE_OFFSET) if special != EOS_ID]] = -math.inf  # never written
    is_greedy = ((logits.argmax(-1) == targets) | ~is_target).all(1)
    return list(map(ScoredContinuation, sums.tolist(), is_greedy.tolist()))
