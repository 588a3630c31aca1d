"""What a model makes of a text, byte by byte: the figures that the page draws from."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from blt.codec import encode, to_bytes
from blt.configuration import to_dict
from blt.lm import LanguageModel, likeliest_bytes, require_finite
from blt.model.cost import cost_of
from blt.patching import PatchRule, patch
from blt.shapes import Float, Tensor

NUM_ALTERNATIVES = 8
"""Likeliest next bytes that a reading holds for each position."""


@dataclass(frozen=True, kw_only=True)
class FlopsByPatch:
    """Forward FLOPs per byte at any mean patch length m: `constant + per_patch / m + per_patch_squared / m²`."""

    constant: float
    """What every byte costs, the entropy model included."""
    per_patch: float
    """What every patch costs."""
    per_patch_squared: float
    """What grows with the square of the number of patches: attention of the global transformer."""
    context_bytes: int
    """Length of the document."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Figures of one document. Position 0 is BOS, position i the text's i-th byte."""

    data: bytes
    """The text."""
    rule: PatchRule
    """The patch rule by which the BLT read it."""
    entropies: tuple[float, ...]
    """Uncertainty about the next byte after each position, in nats; empty without an entropy model."""
    surprise: tuple[float, ...]
    """Bits that each byte of the text costs, given those before it."""
    alternatives: tuple[tuple[tuple[int | None, float], ...], ...]
    """After each position the likeliest next bytes, best first, with their probabilities; None is the end."""
    flops: FlopsByPatch
    """Cost at any mean patch length."""
    ends: tuple[bool, ...]
    """Whether a patch is complete after each position; BOS ends one of its own."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON.

        Entropies keep all digits of float32, in which patch rules compare; the others are for the eye.
        """
        entropies = [float(f"{value:.9g}") for value in self.entropies]
        return {
            "hex": self.data.hex(),
            "rule": to_dict(self.rule),
            "start_entropy": entropies[0] if entropies else None,
            "entropies": entropies[1:] if entropies else None,
            "surprise": [round(value, 4) for value in self.surprise],
            "alternatives": [
                [[byte, float(f"{probability:.4g}")] for byte, probability in likeliest]
                for likeliest in self.alternatives
            ],
            "flops": to_dict(self.flops),
        }


@torch.inference_mode()
def read(
    lm: LanguageModel, text: str | bytes, *, rule: PatchRule | None = None, num_alternatives: int = NUM_ALTERNATIVES
) -> Reading:
    """Read a text as one document, without its end.

    Args:
        lm: the model.
        text: anything, also the empty text.
        rule: where patches end; the model's own rule if not given.
        num_alternatives: likeliest next bytes to keep for each position.

    Raises:
        ConfigurationError: the rule needs entropies, and the model has no entropy model.
        ModelFolderError: entropies or logits are no numbers.
    """
    data = to_bytes(text)
    rule = lm.patch_rule if rule is None else rule
    byte_ids = encode(data, bos=True).to(lm.device)[None]
    entropies = None if lm.entropy_model is None else lm.entropy_model.entropies(byte_ids)
    if entropies is not None:
        require_finite(entropies, "entropies")
    patches = patch(byte_ids, rule, entropies=entropies)
    logits = lm.blt(byte_ids, patches)[0]
    require_finite(logits, "logits")
    logprobs = logits.double().log_softmax(-1)  # T+1 V
    surprise = -logprobs[:-1].gather(1, byte_ids[0, 1:, None])[:, 0] / math.log(2.0)
    return Reading(
        data=data,
        rule=rule,
        entropies=() if entropies is None else tuple(entropies[0].tolist()),
        surprise=tuple(surprise.tolist()),
        alternatives=_likeliest(logprobs, num_alternatives),
        flops=flops_by_patch(lm, context_bytes=max(1, len(data))),
        ends=tuple(patches.ends[0].tolist()),
    )


def flops_by_patch(lm: LanguageModel, *, context_bytes: int) -> FlopsByPatch:
    """Return the cost of a model on a document as a function of the mean patch length.

    `cost_of` is quadratic in x = 1 / m (the global transformer runs x times per byte, and meets that share of keys), so
    its values at x = 1, 1/2 and 1/4 give it everywhere.

    Args:
        lm: the model.
        context_bytes: length of the document.
    """
    shape = None if lm.entropy_model is None else lm.entropy_model.config
    at_1, at_half, at_quarter = (
        cost_of(
            lm.blt.config, mean_patch_bytes=length, context_bytes=context_bytes, entropy_model=shape
        ).flops_with_entropy_model
        for length in (1.0, 2.0, 4.0)
    )
    per_patch_squared = (at_1 - 3 * at_half + 2 * at_quarter) * 8 / 3
    per_patch = 2 * (at_1 - at_half) - 1.5 * per_patch_squared
    return FlopsByPatch(
        constant=at_1 - per_patch - per_patch_squared,
        per_patch=per_patch,
        per_patch_squared=per_patch_squared,
        context_bytes=context_bytes,
    )


def _likeliest(logprobs: Float[Tensor, "T V"], count: int) -> tuple[tuple[tuple[int | None, float], ...], ...]:
    """Return the likeliest next bytes after each position, with their probabilities."""
    return tuple(
        tuple((byte, math.exp(logprob)) for byte, logprob in likeliest)
        for likeliest in likeliest_bytes(logprobs.cpu().numpy(), count)
    )
