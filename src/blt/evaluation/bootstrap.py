"""How far a figure could move if other documents had been drawn."""

import math

import numpy as np
from numpy.typing import NDArray


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
