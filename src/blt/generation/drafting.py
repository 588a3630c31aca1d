"""Drafting the bytes that follow, so that the model reads several at once and only checks them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from blt.codec import BYTE_OFFSET
from blt.configuration import check
from blt.errors import ConfigurationError
from blt.generation.request import DraftSampler, Request
from blt.lm import DecodingStep, LanguageModel
from blt.shapes import Int, Tensor

_Predict = Callable[[Tensor], Tensor]
"""Bytes `R 1` → logits of what follows `R 1 V`."""


@dataclass(frozen=True, kw_only=True)
class DraftConfig:
    """How bytes are drafted."""

    by: Literal["entropy", "decoder"] = "decoder"
    """What drafts: encoder and decoder on the patch that was complete last (BLT-S; arXiv 2605.08044); or the entropy
    model, which reads every byte anyway."""
    max_draft: int = 8
    """Most bytes to draft at once; the number adapts to how many were accepted before."""
    min_probability: float | None = None
    """Draft on only while the likeliest byte has at least this probability; None means 0.4 for the decoder, 0.8 for the
    entropy model, whose drafts are worse."""

    def __post_init__(self) -> None:
        check(self.max_draft >= 1, f"max_draft: at least 1, got {self.max_draft}")
        least = self.least_probability
        check(0 <= least <= 1, f"min_probability: from 0 to 1, got {least}")

    @property
    def least_probability(self) -> float:
        """`min_probability`, or the default where it is None."""
        by_itself = 0.4 if self.by == "decoder" else 0.8
        return by_itself if self.min_probability is None else self.min_probability


class Drafter:
    """Drafts, further ahead while drafts are right and less far after wrong ones.

    Args:
        config: how.
    """

    def __init__(self, config: DraftConfig) -> None:
        self.config = config
        self.num_ahead = config.max_draft
        """How many bytes are drafted at once, at most."""

    def check_serves(self, lm: LanguageModel) -> None:
        """Refuse a model that this cannot draft for.

        Raises:
            ConfigurationError: its patch rule does not look at the entropies that drafts would come from.
        """
        if self.config.by == "entropy" and not lm.patch_rule.needs_entropies:
            raise ConfigurationError("drafting by entropy needs a patch rule that looks at entropies; use 'decoder'")

    def note(self, *, drafted: int, right: int) -> None:
        """Draft more bytes next time if all of a row's drafts were right, fewer if not."""
        if drafted == right == 0:
            return
        change = 2 if right == drafted else -1
        self.num_ahead = min(max(1, self.num_ahead + change), self.config.max_draft)

    def draft(
        self,
        step: DecodingStep,
        chosen: Int[Tensor, "R 1"],
        requests: Sequence[Request],
        *,
        most: int,
    ) -> list[list[int]]:
        """Run the patcher over the chosen bytes and a draft of those that follow.

        Args:
            step: that has not begun.
            chosen: each row's next byte.
            requests: of the rows.
            most: bytes that a draft may have.

        Returns:
            The drafts for each row; rows of fewer drafts than others have read something more, which must be taken
            back.
        """
        most = min(self.num_ahead, most)
        if self.config.by == "entropy":

            def advance_patcher(byte_ids: Tensor) -> Tensor:
                logits = step.advance_patcher(byte_ids)
                assert logits is not None, "checked by `check_serves`"
                return logits

            return self._draft_next(advance_patcher, chosen, requests, most=most)
        drafts = self._draft_next(step.draft, chosen, requests, most=most)
        longest = max(len(drafted) for drafted in drafts)
        padded = [
            drafted + [int(first)] * (longest - len(drafted)) for first, drafted in zip(chosen, drafts, strict=True)
        ]
        step.advance_patcher(torch.cat([chosen, torch.tensor(padded, dtype=torch.long, device=chosen.device)], dim=1))
        return drafts

    def _draft_next(
        self, predict: _Predict, chosen: Int[Tensor, "R 1"], requests: Sequence[Request], *, most: int
    ) -> list[list[int]]:
        """Draft byte by byte, for as long as any row's drafts are good enough."""
        samplers = [request.fork_sampler() for request in requests]
        drafts: list[list[int]] = [[] for _ in requests]
        going, byte_ids = [True] * len(requests), chosen
        for number in range(most + 1):
            logits = predict(byte_ids)[:, -1]
            if number == most:
                break
            scores = logits.cpu().numpy()
            for row, sampler in enumerate(samplers):
                draft = self._next(sampler, scores[row]) if going[row] else None
                going[row] = draft is not None
                if draft is not None:
                    drafts[row].append(draft)
            if not any(going):
                break
            byte_ids = torch.tensor([drafted[-1:] or [BYTE_OFFSET] for drafted in drafts], device=chosen.device)
        return drafts

    def _next(self, sampler: DraftSampler, logits: npt.NDArray[np.float32]) -> int | None:
        if _largest_probability(logits) < self.config.least_probability:
            return None
        return sampler.choose(logits)


def _largest_probability(logits: npt.NDArray[np.float32]) -> float:
    return float(1 / np.exp(logits - logits[logits.argmax()]).sum())
