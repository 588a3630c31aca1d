"""Guessing the bytes that follow, so that the model reads several at once and only checks them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from blt.codec import BYTE_OFFSET
from blt.configuration import check
from blt.errors import ConfigurationError
from blt.generation.request import Foresight, Request
from blt.lm import ByteLM, DecodingSession
from blt.nn import are_native
from blt.shapes import Int, Tensor

_Predict = Callable[[Tensor], Tensor]
"""Bytes `R 1` → logits of what follows `R 1 V`."""


@dataclass(frozen=True, kw_only=True)
class DraftConfig:
    """How bytes are guessed."""

    by: Literal["entropy", "decoder"] = "decoder"
    """What guesses: encoder and decoder on the patch that was complete last (BLT-S; arXiv 2605.08044); or the entropy
    model, which reads every byte anyway."""
    max_guesses: int = 8
    """Guess at most so many bytes at once; how many, up to this, follows from how many were right before."""
    min_probability: float | None = None
    """Guess on only while the guesser finds its likeliest byte at least so likely; unset: 0.4 for the decoder, 0.8 for
    the entropy model, whose guesses are worse."""

    def __post_init__(self) -> None:
        check(self.max_guesses >= 1, f"max_guesses: at least 1, got {self.max_guesses}")
        least = self.least_probability
        check(0 <= least <= 1, f"min_probability: from 0 to 1, got {least}")

    @property
    def least_probability(self) -> float:
        """`min_probability`, or what holds where it is unset."""
        by_itself = 0.4 if self.by == "decoder" else 0.8
        return by_itself if self.min_probability is None else self.min_probability


class Drafter:
    """Guesses, further ahead while guesses are right and less far after wrong ones.

    Args:
        config: how.
    """

    def __init__(self, config: DraftConfig) -> None:
        self.config = config
        self.num_ahead = config.max_guesses
        """How many bytes are guessed at once, at most."""

    def note(self, *, guessed: int, right: int) -> None:
        """Learn how many of a row's guesses were right."""
        if guessed == right == 0:
            return
        change = 2 if right == guessed else -1
        self.num_ahead = min(max(1, self.num_ahead + change), self.config.max_guesses)

    def draft(
        self,
        session: DecodingSession,
        chosen: Int[Tensor, "R 1"],
        requests: Sequence[Request],
        rows: npt.NDArray[np.int64],
    ) -> list[list[int]]:
        """Let the session foresee the chosen bytes and some that are guessed to follow.

        Returns:
            The guesses for each row; rows of fewer guesses than others have read something more, which must be taken
            back.
        """
        most = min(self.num_ahead, session.ahead - 1)
        if self.config.by == "entropy":

            def foresee(byte_ids: Tensor) -> Tensor:
                logits = session.foresee(byte_ids, rows)
                if logits is None:
                    raise ConfigurationError(
                        "guessing by entropy needs a patch rule that looks at entropies; use 'decoder'"
                    )
                return logits

            return self._guess(foresee, chosen, requests, most=most)
        guesses = self._guess(lambda byte_ids: session.guess(byte_ids, rows), chosen, requests, most=most)
        session.forget_guesses()
        longest = max(len(guessed) for guessed in guesses)
        padded = [
            guessed + [int(first)] * (longest - len(guessed)) for first, guessed in zip(chosen, guesses, strict=True)
        ]
        session.foresee(torch.cat([chosen, torch.tensor(padded, dtype=torch.long, device=chosen.device)], dim=1), rows)
        return guesses

    def _guess(
        self, predict: _Predict, chosen: Int[Tensor, "R 1"], requests: Sequence[Request], *, most: int
    ) -> list[list[int]]:
        """Guess byte by byte, for as long as any row's guesses are good enough."""
        foresights = [request.look_ahead() for request in requests]
        guesses: list[list[int]] = [[] for _ in requests]
        going, byte_ids = [True] * len(requests), chosen
        for number in range(most + 1):
            logits = predict(byte_ids)[:, -1]
            if number == most:
                break
            scores = logits.cpu().numpy()
            for row, foresight in enumerate(foresights):
                guess = self._next(foresight, scores[row]) if going[row] else None
                going[row] = guess is not None
                if guess is not None:
                    guesses[row].append(guess)
            if not any(going):
                break
            byte_ids = torch.tensor([guessed[-1:] or [BYTE_OFFSET] for guessed in guesses], device=chosen.device)
        return guesses

    def _next(self, foresight: Foresight, logits: npt.NDArray[np.float32]) -> int | None:
        if _largest_probability(logits) < self.config.least_probability:
            return None
        return foresight.choose(logits)


def default_drafter(lm: ByteLM, *, num_requests: int) -> Drafter | None:
    """Give what guesses where nothing else is said: the decoder, where that is faster, else nothing.

    It is where a text is written alone, by the kernels, which read several bytes in hardly more time than one.
    """
    if num_requests == 1 and are_native(lm.blt):
        return Drafter(DraftConfig())
    return None


def _largest_probability(logits: npt.NDArray[np.float32]) -> float:
    return float(1 / np.exp(logits - logits[logits.argmax()]).sum())
