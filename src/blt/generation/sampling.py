"""Choosing the next byte."""

import math
import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blt.codec import BYTE_OFFSET, EOS_ID
from blt.configuration import check

_NEVER_SAMPLED = [special for special in range(BYTE_OFFSET) if special != EOS_ID]


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next byte is chosen from its probabilities."""

    temperature: float | int = 0.7
    """Below 1: safer; above 1: wilder; 0: always the likeliest byte."""
    top_k: int | None = None
    """Choose among the k likeliest bytes only; unset: among all."""
    top_p: float | int | None = None
    """Choose among the fewest likeliest bytes that together reach this probability; unset: among all."""
    seed: int | None = None
    """Equal seeds give equal texts; unset: another text every time."""

    def __post_init__(self) -> None:
        is_temperature = math.isfinite(self.temperature) and self.temperature >= 0
        check(is_temperature, f"temperature: expected 0 (greedy) or a number above it, got {self.temperature}")
        check(self.top_k is None or self.top_k >= 1, f"top_k: at least 1, got {self.top_k}; leave it out for all bytes")
        check(self.top_p is None or 0 < self.top_p <= 1, f"top_p: above 0 and at most 1, got {self.top_p}")
        check(self.seed is None or self.seed >= 0, f"seed: at least 0, got {self.seed}")


class Sampler:
    """Chooses the ids of one row, with random numbers of its own.

    Args:
        config: how.
    """

    def __init__(self, config: SamplingConfig) -> None:
        self.config = config
        self._random = random.Random(config.seed)

    def choose(self, logits: npt.NDArray[np.float32]) -> int:
        """Give the next id, a byte's or EOS, from the logits of all 260."""
        allowed = logits.astype(np.float64)
        allowed[_NEVER_SAMPLED] = -np.inf
        if self.config.temperature == 0:
            return int(allowed.argmax())
        cumulative = probabilities(allowed, self.config).cumsum()
        drawn = self._random.random() * cumulative[-1]
        return int(cumulative.searchsorted(drawn, side="right"))


def probabilities(logits: npt.NDArray[np.float64], config: SamplingConfig) -> npt.NDArray[np.float64]:
    """Give the distribution that is sampled from, at a temperature above 0: temperature, then top k, then top p.

    Of equally likely ids, the smaller comes first.
    """
    with np.errstate(over="ignore"):  # a tiny temperature makes all but the likeliest impossible
        weights = np.exp((logits - logits.max()) / config.temperature)
    order = np.argsort(-weights, kind="stable")
    if config.top_k is not None:
        weights[order[config.top_k :]] = 0
    weights /= weights.sum()
    if config.top_p is not None:
        reached = weights[order].cumsum()  # once each id is in; the one that reaches top_p is the last to stay
        weights[order[1:][reached[:-1] >= config.top_p]] = 0
        weights /= weights.sum()
    return weights
