"""A range variant of asymmetric numeral systems (rANS; Duda 2013, arXiv 1311.2540) over many streams at once.

A state of 63 bits and words of 32: a symbol that has `frequency` of the 2^24 slots from `low` on takes the state x to
(x div frequency) · 2^24 + low + x mod frequency, and the decoder goes the same way back. So symbols are coded last to
first and decoded first to last. A state that a symbol would carry beyond 2^63 gives its lower 32 bits away first.

Encoding begins at the state 2^31 + check, for a check of 31 bits, and decoding must end there: a checksum that costs
nothing. The streams of a batch are independent; a numpy operation advances all of them.

The Python interface of the package `constriction` takes probabilities as floats and one model per call and symbol;
here the frequencies are whole numbers from the start and a step of 32 streams costs less than a hundredth of the
model's.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from blt.compression.frequencies import PRECISION, TOTAL

_LEAST = np.uint64(1 << 31)
_WORD = np.uint64(32)
_BITS = np.uint64(PRECISION)
_MASK = np.uint64(TOTAL - 1)
STATE_BYTES = 8


def encode(
    lows: NDArray[np.int64], counts: NDArray[np.int64], lengths: Sequence[int], checks: Sequence[int]
) -> list[bytes]:
    """Encode streams.

    Args:
        lows: where each symbol's slots begin.
        counts: its frequency.
        lengths: how many symbols each stream has.
        checks: of each stream, 31 bits.

    Returns:
        Each stream: its last state, then its words, in the order in which a decoder needs them.
    """
    ends = np.asarray(lengths)
    state = _LEAST + np.asarray(checks, np.uint64)
    num_rows, num_steps = lows.shape
    words: list[list[int]] = [[] for _ in range(num_rows)]
    for step in reversed(range(num_steps)):
        rows = np.flatnonzero(ends > step)
        low, count, x = lows[rows, step].astype(np.uint64), counts[rows, step].astype(np.uint64), state[rows]
        is_full = x >= count << np.uint64(63 - PRECISION)
        for row in rows[is_full].tolist():
            words[row].append(int(state[row]) & 0xFFFFFFFF)
        x = np.where(is_full, x >> _WORD, x)
        state[rows] = ((x // count) << _BITS) + low + x % count
    return [
        int(last).to_bytes(STATE_BYTES, "little") + np.array(own[::-1], "<u4").tobytes()
        for last, own in zip(state, words, strict=True)
    ]


class Decoder:
    """Decodes streams step by step; a stream that is damaged gives symbols nonetheless, and does not end at its check.

    Args:
        streams: as `encode` returned them.
    """

    def __init__(self, streams: Sequence[bytes]) -> None:
        whole = [stream.ljust(STATE_BYTES, b"\0") for stream in streams]
        self._state = np.array([int.from_bytes(stream[:STATE_BYTES], "little") for stream in whole], np.uint64)
        words = [
            np.frombuffer(stream[STATE_BYTES : STATE_BYTES + len(stream[STATE_BYTES:]) // 4 * 4], "<u4")
            for stream in whole
        ]
        self._num_words = np.array([len(own) for own in words])
        self._words = np.zeros((len(words), max([*self._num_words.tolist(), 0]) + 1), np.uint64)
        for row, own in enumerate(words):
            self._words[row, : len(own)] = own
        self._at = np.zeros(len(words), np.int64)

    def next(self, frequencies: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the next symbol of some streams.

        Args:
            frequencies: of the symbols in each.
            rows: which streams.
        """
        bounds = frequencies.cumsum(1)
        x = self._state[rows]
        slot = (x & _MASK).astype(np.int64)
        symbols = (bounds <= slot[:, None]).sum(1)
        numbers = np.arange(len(rows))
        count = frequencies[numbers, symbols]
        low = bounds[numbers, symbols] - count
        x = count.astype(np.uint64) * (x >> _BITS) + (slot - low).astype(np.uint64)
        needs = x < _LEAST
        at = np.minimum(self._at[rows], self._num_words[rows])  # beyond the last word there are zeros
        self._state[rows] = np.where(needs, (x << _WORD) | self._words[rows, at], x)
        self._at[rows] += needs
        return symbols

    def are_whole(self, checks: Sequence[int]) -> NDArray[np.bool_]:
        """Whether each stream has ended at its check, with all its words read and no more."""
        return (self._state == _LEAST + np.asarray(checks, np.uint64)) & (self._at == self._num_words)
