"""Logits → whole-number frequencies that a coder divides its range by, by whole-number arithmetic alone.

A coder depends on the last bit of its frequencies. So the logits become whole numbers at once: their distance from the
largest in 1/1024 nat, then e^−x from two tables that decimal arithmetic rounds correctly, then shares of 2^24. No
float is added up anywhere, so equal logits give equal frequencies on every machine.
"""

from decimal import Decimal
from functools import cache

import numpy as np
from numpy.typing import NDArray

from blt.codec import BYTE_OFFSET, EOS_ID
from blt.errors import ModelFolderError

PRECISION = 24
"""Bits of a frequency: those of a position add up to 2^24."""
TOTAL = 1 << PRECISION
NUM_BYTES = 256
END = 256
"""The symbol that ends a document, where documents are told apart."""

_STEPS = 1024  # per nat
_MOST_NATS = 24
_SCALE = 30


def frequencies(logits: NDArray[np.float32], *, with_end: bool) -> NDArray[np.int64]:
    """Return the frequencies of the 256 bytes, and of the end of a document where it may come.

    Every symbol gets at least 1, so that any text can be coded; what is left over goes to the likeliest.

    Args:
        logits: of the ids of the vocabulary.
        with_end: whether documents are told apart.

    Raises:
        ModelFolderError: logits that are no numbers.
    """
    chosen = logits[:, BYTE_OFFSET : BYTE_OFFSET + NUM_BYTES]
    if with_end:
        chosen = np.concatenate([chosen, logits[:, EOS_ID : EOS_ID + 1]], axis=1)
    if not np.isfinite(chosen).all():
        raise ModelFolderError("logits of the model are not finite: its weights are broken, or need float32")
    below = (chosen.max(1, keepdims=True) - chosen) * np.float32(_STEPS)
    steps = np.rint(np.minimum(below, np.float32(_MOST_NATS * _STEPS - 1))).astype(np.int64)
    coarse, fine = _exponentials()
    return shares((coarse[steps >> 10] * fine[steps & 1023]) >> _SCALE)


def shares(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Divide 2^24 among symbols by their weights, which are below 2^38; each gets at least 1."""
    num_symbols = weights.shape[1]
    found = weights * (TOTAL - num_symbols) // weights.sum(1, keepdims=True) + 1
    found[np.arange(len(found)), weights.argmax(1)] += TOTAL - found.sum(1)
    return found


@cache
def _exponentials() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return e^−k for whole k and e^−(j / 1024), times 2^30, rounded down."""
    scale = Decimal(1 << _SCALE)
    coarse = [int(scale * Decimal(-k).exp()) for k in range(_MOST_NATS)]
    fine = [int(scale * (Decimal(-j) / _STEPS).exp()) for j in range(_STEPS)]
    return np.array(coarse, np.int64), np.array(fine, np.int64)
