"""What the text itself teaches while it is coded: contexts of some bytes, counted and mixed with the model.

Every order of context is an expert: what followed the last n symbols before, smoothed by the model's own prediction.
The experts' predictions are mixed linearly, by weights that move towards whoever predicted well; which set of weights
is used depends on how many orders have met their context before. All rows of a batch share counts and weights, in the
order of their steps. A symbol is counted once it is coded, so the decoder knows all that the encoder knew. Whole
numbers only.
"""

import numpy as np
from numpy.typing import NDArray

from blt.compression.frequencies import PRECISION, shares

ORDERS = (2, 3, 4, 6, 9)
"""Symbols of a context, for each expert beside the model."""

_SLOTS = 1 << 16
_PRIOR = 4  # one count weighs as much as this many times the model
_UNIT = 1 << 16  # of weights
_LEAST_WEIGHT = 1 << 6
_RATE = 7  # a row moves a weight by 2^-7 of the way
_MOST_COUNTS = 1000


class ContextMixer:
    """Mixes a model's frequencies with those of contexts.

    Args:
        num_rows: of the batch.
        num_symbols: of the alphabet.
    """

    def __init__(self, num_rows: int, *, num_symbols: int) -> None:
        self._counts = [np.zeros((_SLOTS, num_symbols), np.uint16) for _ in ORDERS]
        self._totals = np.zeros((len(ORDERS), _SLOTS), np.int64)
        self._history = np.zeros((num_rows, max(ORDERS)), np.int64)
        first = [_UNIT // 2, *[_UNIT // 2 // len(ORDERS)] * len(ORDERS)]
        self._weights = np.tile(np.array(first, np.int64), (len(ORDERS) + 1, 1))
        self._slots = np.zeros((len(ORDERS), 0), np.int64)
        self._sets = np.zeros(0, np.int64)
        self._experts = np.zeros((0, 0, 0), np.int64)

    def mix(self, model: NDArray[np.int64], active: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the frequencies of the next symbol of some rows, `N S`."""
        self._slots = np.stack([self._slot(order, active) for order in ORDERS])  # K N
        totals = np.take_along_axis(self._totals, self._slots, 1)
        self._sets = (totals > 0).sum(0)
        experts = [model]
        for counts, slots, total in zip(self._counts, self._slots, totals, strict=True):
            seen = counts[slots].astype(np.int64) * _PRIOR
            experts.append(((seen << PRECISION) + model) // (total * _PRIOR + 1)[:, None])
        self._experts = np.stack(experts)  # K+1 N S
        weights = self._weights[self._sets].T[:, :, None]
        return shares((self._experts * weights).sum(0) >> 10)

    def update(self, symbols: NDArray[np.int64], active: NDArray[np.int64]) -> None:
        """Move the weights towards the experts that predicted the symbols well."""
        weights = self._weights[self._sets].T  # K+1 N
        parts = self._experts[:, np.arange(len(symbols)), symbols] * weights + 1
        moved = (parts * _UNIT // parts.sum(0) - weights) >> _RATE
        np.add.at(self._weights, self._sets, moved.T)
        np.maximum(self._weights, _LEAST_WEIGHT, out=self._weights)
        for order, slots in enumerate(self._slots):
            np.add.at(self._counts[order], (slots, symbols), 1)
            np.add.at(self._totals[order], slots, 1)
            for slot in np.unique(slots[self._totals[order, slots] > _MOST_COUNTS]).tolist():
                self._counts[order][slot] >>= 1
                self._totals[order, slot] = int(self._counts[order][slot].sum())
        self._history[active] = np.concatenate([self._history[active, 1:], symbols[:, None]], axis=1)

    def _slot(self, order: int, active: NDArray[np.int64]) -> NDArray[np.int64]:
        """Hash the last symbols of rows."""
        found = np.full(len(active), order, np.int64)
        for symbol in self._history[active, -order:].T:
            found = (found * 0x2F0B4C47 + symbol + 1) & 0xFFFFFFFF
        return (found * 0x1E3779B1 & 0xFFFFFFFF) >> 16
