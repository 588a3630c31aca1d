"""Mean patch length: its definition, and the threshold that gives a target mean."""

import dataclasses
import math
from collections.abc import Sequence

import torch

from blt.codec import BOS_ID, BYTE_OFFSET, EOS_ID
from blt.configuration import check
from blt.errors import ConfigurationError, DataError
from blt.patching.patches import Patches
from blt.patching.rules import EntropyAndRiseRule, EntropyRiseRule, EntropyRule, PatchRule, look_back, patch
from blt.shapes import Float, Int, Tensor

ThresholdRule = EntropyRule | EntropyRiseRule | EntropyAndRiseRule
"""The rules that have a threshold to find."""


def count_text(patches: Patches, byte_ids: Int[Tensor, "B T"]) -> tuple[int, int]:
    """Count the bytes of text, and the patches that hold any of them.

    Special ids (BOS, EOS, padding) are no text; a patch that holds nothing else is not counted. A trailing open patch
    counts like any other: its bytes are text, and they lie in it.

    Returns:
        number of bytes, number of patches. Add both up over batches before dividing.
    """
    num_bytes, num_patches = count_text_by_row(patches, byte_ids)
    return int(num_bytes.sum()), int(num_patches.sum())


def count_text_by_row(patches: Patches, byte_ids: Int[Tensor, "B T"]) -> tuple[Int[Tensor, " B"], Int[Tensor, " B"]]:
    """Count as `count_text` does, each row by itself."""
    is_text = byte_ids >= BYTE_OFFSET
    bytes_held = torch.zeros_like(patches.ids).scatter_add(1, patches.ids, is_text.long())  # B T: patches ≤ bytes
    return is_text.sum(1), (bytes_held > 0).sum(1)


def mean_patch_bytes(patches: Patches, byte_ids: Int[Tensor, "B T"]) -> float:
    """Return the mean patch length: bytes of text ÷ patches with any of them (see `count_text`); 0 without text."""
    num_bytes, num_patches = count_text(patches, byte_ids)
    return num_bytes / num_patches if num_patches else 0.0


def calibrate(
    rule: PatchRule,
    *,
    byte_ids: Sequence[Int[Tensor, " _"]],
    entropies: Sequence[Float[Tensor, " _"]],
    mean_patch_bytes: float,
) -> ThresholdRule:
    """Find the threshold whose patches are, on given documents, as near a target mean length as these allow.

    The higher the threshold, the fewer the patches, with `max_length` too; so the entropies (or rises) that occur are
    searched by bisection. The threshold lies halfway between two of them, away from both.

    Args:
        rule: the rule, whose own threshold does not matter. All its other fields stay as they are.
        byte_ids: documents, each from its BOS to its EOS.
        entropies: of each document, one per id, in nats.
        mean_patch_bytes: the target, as `mean_patch_bytes` measures it.

    Raises:
        ConfigurationError: the rule has no threshold, or no threshold gives the target mean.
        DataError: the documents hold no text, are not whole, or have entropies that do not fit them.
    """
    if not isinstance(rule, ThresholdRule):
        raise ConfigurationError(
            f"{type(rule).__name__} has no threshold to calibrate; "
            "choose a rule of type 'entropy', 'entropy-rise' or 'entropy-and-rise'"
        )
    check(
        math.isfinite(mean_patch_bytes) and mean_patch_bytes >= 1,
        f"mean_patch_bytes: a patch holds at least 1 byte, got {mean_patch_bytes}",
    )
    sample = _Sample(rule, *_joined(byte_ids, entropies))
    lowest, highest = sample.mean(-1), sample.mean(len(sample.scores) - 1)
    check(
        lowest <= mean_patch_bytes <= highest,
        f"mean_patch_bytes: no threshold gives {mean_patch_bytes:g} bytes per patch on these documents; "
        f"with {rule} it can be {lowest:.3f} to {highest:.3f}",
    )
    below, above = -1, len(sample.scores) - 1  # mean(below) <= wanted <= mean(above)
    while above - below > 1:
        middle = (below + above) // 2
        if sample.mean(middle) <= mean_patch_bytes:
            below = middle
        else:
            above = middle
    nearest = min(below, above, key=lambda index: abs(sample.mean(index) - mean_patch_bytes))
    return sample.rule_at(nearest)


class _Sample:
    """Documents laid end to end in one row, to be patched at every threshold that makes a difference."""

    def __init__(self, rule: ThresholdRule, byte_ids: Int[Tensor, "1 N"], entropies: Float[Tensor, "1 N"]) -> None:
        self.rule, self.byte_ids, self.entropies = rule, byte_ids, entropies
        scores = rule.score(look_back(byte_ids, entropies))
        self.scores: Tensor = torch.unique(scores[scores.isfinite()])  # in ascending order
        if not len(self.scores):
            raise DataError(f"{rule} ends no patch in these documents, whatever its threshold; give it more text")

    def rule_at(self, index: int) -> ThresholdRule:
        """Return the rule with a threshold between the scores `index` and `index + 1`; −1 is below them all."""
        if index == -1:
            threshold = float(self.scores[0]) - 1
        else:
            here, following = self.scores[index], self.scores[min(index + 1, len(self.scores) - 1)]
            halfway = (here + following) / 2
            threshold = float(torch.where(halfway < following, halfway, here))  # neighbours in float32 have no between
        return dataclasses.replace(self.rule, threshold=threshold)

    def mean(self, index: int) -> float:
        patches = patch(self.byte_ids, self.rule_at(index), entropies=self.entropies)
        return mean_patch_bytes(patches, self.byte_ids)


def _joined(
    byte_ids: Sequence[Int[Tensor, " _"]], entropies: Sequence[Float[Tensor, " _"]]
) -> tuple[Int[Tensor, "1 N"], Float[Tensor, "1 N"]]:
    """Lay whole documents end to end: each is patched as if alone, for BOS and EOS are patch ends."""
    if len(byte_ids) != len(entropies):
        raise DataError(f"calibration got {len(byte_ids)} documents and the entropies of {len(entropies)}")
    for number, (ids, uncertainty) in enumerate(zip(byte_ids, entropies, strict=True), 1):
        if ids.shape != uncertainty.shape:
            raise DataError(f"document {number} has {len(ids)} ids and {len(uncertainty)} entropies; give one per id")
        if not bool(uncertainty.isfinite().all()):
            raise DataError(f"document {number} has entropies that are not finite; check the entropy model")
        if len(ids) < 2 or int(ids[0]) != BOS_ID or int(ids[-1]) != EOS_ID:
            raise DataError(f"document {number} is not whole; give every id from its BOS to its EOS")
    if not any(len(ids) > 2 for ids in byte_ids):
        raise DataError("calibration needs text, and got none; give it a few documents")
    return torch.cat(list(byte_ids))[None], torch.cat([one.float() for one in entropies])[None]
