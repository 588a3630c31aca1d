"""How far a figure could move if other documents had been drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """A figure with its 95% interval; NaN without one."""

    value: float
    low: float
    high: float

    @classmethod
    def of_mean(cls, figures: Sequence["Interval"]) -> "Interval":
        """Return the mean of independent figures; half-widths add up as standard errors do."""
        count = len(figures)
        value = sum(figure.value for figure in figures) / count
        below = math.sqrt(sum((figure.value - figure.low) ** 2 for figure in figures)) / count
        above = math.sqrt(sum((figure.high - figure.value) ** 2 for figure in figures)) / count
        return cls(value, value - below, value + above)

    def to_dict(self) -> dict[str, float | None]:
        """Return plain values for JSON; a missing interval is null."""
        values = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if math.isnan(value) else value for name, value in values.items()}


def mean_interval(values: NDArray[np.float64], *, resamples: int, seed: int) -> Interval:
    """Return the mean of some values and its 95% percentile bootstrap interval.

    Args:
        values: such as 1 for every right answer.
        resamples: how many times to draw; 0 for no interval.
        seed: chooses the draws.
    """
    return ratio(values, np.ones(len(values), np.int64), resamples=resamples, seed=seed)


def ratio(numerators: NDArray[np.float64], denominators: NDArray[np.int64], *, resamples: int, seed: int) -> Interval:
    """Return Σ numerators / Σ denominators and its interval, as `ratio_interval` does; NaN without resamples."""
    low, high = math.nan, math.nan
    if resamples:
        low, high = ratio_interval(numerators, denominators, resamples=resamples, seed=seed)
    return Interval(float(numerators.sum() / denominators.sum()), low, high)


def ratio_interval(
    numerators: NDArray[np.float64], denominators: NDArray[np.int64], *, resamples: int, seed: int
) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of Σ numerators / Σ denominators (Efron and Tibshirani 1993).

    Pairs are drawn with replacement, as many as there are. A draw whose denominators sum to 0 is left out.

    Args:
        numerators: such as the bits of each document.
        denominators: such as its bytes.
        resamples: how many times to draw.
        seed: chooses the draws.

    Returns:
        The 2.5th and 97.5th percentiles; NaN if every draw was left out.
    """
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(resamples):
        drawn = generator.integers(len(numerators), size=len(numerators))
        total = denominators[drawn].sum()
        if total:
            ratios.append(numerators[drawn].sum() / total)
    if not ratios:
        return math.nan, math.nan
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)
