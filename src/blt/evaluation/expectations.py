"""What a model expects at every byte of a text, which is read in one pass."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from blt.codec import BYTE_OFFSET, EOS_ID, encode, to_bytes
from blt.configuration import check
from blt.evaluation.entropies import entropies_of_rows
from blt.generation import Alternative
from blt.lm import LanguageModel, likeliest_bytes, require_finite
from blt.patching import Patches, PatchRule, patch
from blt.shapes import Float, Int, Tensor


@dataclass(frozen=True, eq=False)
class Expectations:
    """What a model expects to follow each byte of a document; index t is known once t bytes have been read."""

    data: bytes
    """The text."""
    logprobs: npt.NDArray[np.float32]
    """`T+1 V`: natural logarithm of the probability of each of the 260 ids to come next."""

    def byte_logprobs(self) -> npt.NDArray[np.float32]:
        """Return the log-probability of each byte given those before it, and of the end after all of them: `T+1`."""
        targets = np.append(np.frombuffer(self.data, np.uint8).astype(np.int64) + BYTE_OFFSET, EOS_ID)
        return self.logprobs[np.arange(len(targets)), targets]

    def alternatives(self, count: int) -> list[list[Alternative]]:
        """Return the likeliest that could stand in place of each byte, and after the last, best first.

        Args:
            count: how many; at most 257, all bytes and the end.
        """
        return _likeliest(self.logprobs, count)

    def alternatives_at(self, place: int, count: int) -> list[Alternative]:
        """Return the likeliest at one place; -1 is after the last byte."""
        return _likeliest(self.logprobs[place][None], count)[0]


def _likeliest(logprobs: npt.NDArray[np.float32], count: int) -> list[list[Alternative]]:
    return [
        [Alternative(byte=byte, logprob=logprob) for byte, logprob in likeliest]
        for likeliest in likeliest_bytes(logprobs, count)
    ]


@torch.inference_mode()
def expected_bytes(lm: LanguageModel, text: str | bytes, *, rule: PatchRule | None = None) -> Expectations:
    """Return what a model expects at every byte of a text.

    Args:
        lm: the model.
        text: read as one document, in one pass.
        rule: where patches end; the model's own rule if not given.

    Raises:
        ConfigurationError: the rule needs an entropy model, and there is none.
        ModelFolderError: the model's logits or entropies are no numbers.
    """
    byte_ids = encode(text, bos=True).to(lm.device)[None]
    logits = next_byte_logits(lm, byte_ids, torch.tensor([byte_ids.shape[1]], device=lm.device), rule=rule)
    require_finite(logits, "logits")
    return Expectations(
        data=to_bytes(text),
        logprobs=logits[0].log_softmax(-1).cpu().numpy(),
    )


def next_byte_logits(
    lm: LanguageModel, byte_ids: Int[Tensor, "B T"], lengths: Int[Tensor, " B"], *, rule: PatchRule | None = None
) -> Float[Tensor, "B T V"]:
    """Return the logits of the byte that follows each, of rows of several lengths.

    Args:
        lm: the model.
        byte_ids: rows, filled up with anything.
        lengths: of each row; what fills it up is one open patch, which nobody reads.
        rule: where patches end; the model's own rule if not given.

    Raises:
        ConfigurationError: the rule needs an entropy model, and there is none.
    """
    rule = lm.patch_rule if rule is None else rule
    has_entropies = lm.entropy_model is not None
    check(has_entropies or not rule.needs_entropies, f"rule: {type(rule).__name__} needs an entropy model; use another")
    entropy_model = lm.entropy_model if rule.needs_entropies else None
    entropies = None if entropy_model is None else entropies_of_rows(entropy_model, byte_ids)
    is_read = torch.arange(byte_ids.shape[1], device=byte_ids.device) < lengths[:, None]
    ends = patch(byte_ids, rule, entropies=entropies).ends & is_read
    return lm.blt(byte_ids, Patches(ends=ends))
