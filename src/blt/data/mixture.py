"""A mixture of sources: which source each row comes from, computed from the row's number alone.

Of j rows, a source with the share p of the weights has had round(p · j): rows come evenly, and after any number of them
each source is within a row of its share for two sources, and within a row per source for more. No random numbers and no
table are needed, so that any step can be found at once, on any number of ranks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from blt.configuration import check


@dataclass(frozen=True, kw_only=True)
class MixedSource:
    """One source of a mixture: a slice of an id stream, and how much of it is read."""

    ids: range
    """Its slice of the id stream."""
    weight: float
    """Share of rows, relative to the other sources."""
    epochs: float | None = None
    """Most times that it is read; then the other sources share out its rows. None: no limit."""


@dataclass(frozen=True, kw_only=True)
class _Phase:
    """Rows during which the same sources are read."""

    first_row: int
    """The row that it begins with."""
    read: tuple[int, ...]
    """The sources, in order."""
    shares: tuple[tuple[int, int], ...]
    """Of what the sources before it have left, the part that each takes: numerator and denominator; the last is 1."""
    begun: tuple[int, ...]
    """Rows that each of all sources has had before."""

    def locate(self, row: int) -> tuple[int, int]:
        """Return the source of a row, and how many rows it has had before."""
        left = row - self.first_row
        for source, share in zip(self.read, self.shares, strict=True):
            before = _part(left, share)
            if _part(left + 1, share) > before:
                return source, self.begun[source] + before
            left -= before
        raise AssertionError("the last source takes what is left")

    def counts(self, row: int) -> list[int]:
        """Return how many rows each of all sources has had before a row."""
        counts, left = list(self.begun), row - self.first_row
        for source, share in zip(self.read, self.shares, strict=True):
            taken = _part(left, share)
            counts[source] += taken
            left -= taken
        return counts


class Mixture:
    """Finds for every row, by its number, which source it comes from and which of that source's rows it is."""

    def __init__(self, weights: Sequence[float], *, limits: Sequence[int | None] | None = None) -> None:
        """Lay out the phases: whenever a source has had all its rows, the others share out the rest by their weights.

        Args:
            weights: share of rows of each source, relative to the others.
            limits: most rows of each source; None: no limit.

        Raises:
            ConfigurationError: there is no source, a weight is not above 0 and finite, or a limit is not positive.
        """
        limits = [None] * len(weights) if limits is None else list(limits)
        check(len(weights) > 0 and len(limits) == len(weights), "sources: expected at least one, and a limit for each")
        for weight in weights:
            check(0 < weight < math.inf, f"weight: {weight}; above 0, and finite")
        for limit in limits:
            check(limit is None or limit >= 1, f"limit: {limit}; at least one row")
        self._exact = [Fraction(weight) for weight in weights]
        self._limits = limits
        self.num_rows: int | None = None
        """Rows until every source has had all of its own; None: without end."""
        self._phases: list[_Phase] = []
        first_row, begun = 0, [0] * len(weights)
        while read := [k for k, limit in enumerate(limits) if limit is None or begun[k] < limit]:
            phase = self._phase(first_row, read, begun)
            self._phases.append(phase)
            if all(limits[source] is None for source in read):
                return
            first_row = self._end_of(phase)
            begun = phase.counts(first_row)
        self.num_rows = first_row

    def locate(self, row: int) -> tuple[int, int]:
        """Return the number of the source that a row comes from, and how many rows of that source come before it.

        Raises:
            ConfigurationError: every source has had all its rows before.
        """
        check(row >= 0, f"row: {row}; 0 or more")
        check(
            self.num_rows is None or row < self.num_rows, f"row {row:,}: the sources have {self.num_rows or 0:,} rows"
        )
        return next(phase for phase in reversed(self._phases) if phase.first_row <= row).locate(row)

    def counts(self, row: int) -> list[int]:
        """Return how many rows of each source come before a row."""
        return next(phase for phase in reversed(self._phases) if phase.first_row <= row).counts(row)

    def _phase(self, first_row: int, read: list[int], begun: list[int]) -> _Phase:
        left, shares = sum((self._exact[source] for source in read), start=Fraction(0)), []
        for source in read:
            share = self._exact[source] / left
            shares.append((share.numerator, share.denominator))
            left -= self._exact[source]
        return _Phase(first_row=first_row, read=tuple(read), shares=tuple(shares), begun=tuple(begun))

    def _end_of(self, phase: _Phase) -> int:
        """Return the first row after which a source has had all of its own; counts only grow, so bisection finds it."""

        def is_over(row: int) -> bool:
            counts = phase.counts(row)
            return any(limit is not None and counts[k] >= limit for k, limit in enumerate(self._limits) if k in active)

        active = set(phase.read)
        low, step = phase.first_row, 1
        while not is_over(low + step):
            low, step = low + step, 2 * step
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if is_over(middle) else (middle, high)
        return high


def _part(count: int, share: tuple[int, int]) -> int:
    """Return a share of a count, rounded to the nearest whole number, halves up."""
    numerator, denominator = share
    return (2 * count * numerator + denominator) // (2 * denominator)
