"""Penalties: what has occurred becomes less likely.

`RepetitionPenalty` is that of CTRL (Keskar et al. 2019, section 4.1), `WrittenPenalty` that of OpenAI's API.
"""

import numpy as np
import numpy.typing as npt

from blt.codec import BYTE_OFFSET, VOCABULARY_SIZE


class RepetitionPenalty:
    """Lowers the logits of bytes that have occurred.

    Args:
        penalty: positive logits are divided by it, negative ones multiplied.
        window: number of latest bytes that count; None means all.
        prompt: what has been read.
    """

    def __init__(self, penalty: float | int, *, window: int | None = None, prompt: bytes = b"") -> None:
        self._penalty = float(penalty)
        self._window = window
        self._recent = bytearray(b"" if window is None else prompt[-window:])
        counted = np.frombuffer(prompt if window is None else bytes(self._recent), np.uint8)
        self._counts = np.zeros(VOCABULARY_SIZE, np.int64)
        self._counts[BYTE_OFFSET:] = np.bincount(counted, minlength=256)

    def apply(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return new logits, in which what has occurred is lower (or, with a penalty below 1, higher)."""
        lowered = np.where(logits > 0, logits / self._penalty, logits * self._penalty)
        return np.where(self._counts > 0, lowered, logits)

    def read(self, byte: int) -> None:
        """Count a byte."""
        self._counts[byte + BYTE_OFFSET] += 1
        if self._window is None:
            return
        self._recent.append(byte)
        if len(self._recent) > self._window:
            self._counts[self._recent.pop(0) + BYTE_OFFSET] -= 1

    def fork(self) -> "RepetitionPenalty":
        """Return an independent copy."""
        copy = RepetitionPenalty(self._penalty, window=self._window)
        copy._recent = bytearray(self._recent)
        copy._counts = self._counts.copy()
        return copy


class WrittenPenalty:
    """Lowers the logits of bytes that have been written; the prompt does not count.

    Args:
        presence: what each byte that has been written loses.
        frequency: what it loses besides, for each time.
    """

    def __init__(self, *, presence: float | int, frequency: float | int) -> None:
        self._presence, self._frequency = float(presence), float(frequency)
        self._counts = np.zeros(VOCABULARY_SIZE)

    def apply(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return new logits, in which what has been written is lower (or, with negative penalties, higher)."""
        return logits - self._frequency * self._counts - self._presence * (self._counts > 0)

    def read(self, byte: int) -> None:
        """Count a byte."""
        self._counts[byte + BYTE_OFFSET] += 1

    def fork(self) -> "WrittenPenalty":
        """Return an independent copy."""
        copy = WrittenPenalty(presence=self._presence, frequency=self._frequency)
        copy._counts = self._counts.copy()
        return copy
