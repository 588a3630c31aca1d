"""How far a figure could move if other documents had been drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959964
"""Standard deviations to each side in which 95% of a normal distribution lie."""


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


def share_interval(values: NDArray[np.float64], *, resamples: int, seed: int) -> Interval:
    """Return the mean of some shares and its 95% interval: Wilson's where all are 0 or all are 1, else the bootstrap's.

    Every draw of values that are all alike is the same, so a bootstrap would take the figure for certain. Wilson's
    score interval of 0 of n is 0 to z² / (n + z²), that of n of n is n / (n + z²) to 1 (Wilson 1927, "Probable
    inference, the law of succession, and statistical inference", JASA 22).

    Args:
        values: each from 0 to 1, such as 1 for every right answer.
        resamples: how many times to draw; 0 for no interval.
        seed: chooses the draws.
    """
    least, most, count = float(values.min()), float(values.max()), len(values)
    if not resamples or least != most or least not in (0.0, 1.0):
        return mean_interval(values, resamples=resamples, seed=seed)
    far = Z95**2 / (count + Z95**2)
    return Interval(0.0, 0.0, far) if most == 0 else Interval(1.0, 1 - far, 1.0)


def ratio(numerators: NDArray[np.float64], denominators: NDArray[np.int64], *, resamples: int, seed: int) -> Interval:
    """Return Σ numerators / Σ denominators and its interval, as `ratio_interval` does.

    The interval is NaN without resamples, and for a single pair, of which every draw is the same.
    """
    low, high = math.nan, math.nan
    if resamples and len(numerators) > 1:
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
