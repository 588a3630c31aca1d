"""Symbols ⇄ streams: a model predicts the next symbol of many rows at once, and a coder spends its bits accordingly.

A row's symbols are bytes and, where documents are told apart, ends of documents. What the model reads before it
predicts a symbol is the one before it: a byte as its id, and BOS at the start, after an end, and after every `context`
symbols of one document (a small model predicts badly far beyond the length that it was trained on).

The encoder knows all symbols, and reads many at once where the model's logits do not depend on that, which is a law of
the native decoder. PyTorch's do, so there the encoder takes the decoder's steps.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from blt.codec import BOS_ID, BYTE_OFFSET
from blt.compression import rans
from blt.compression.frequencies import END, TOTAL, frequencies
from blt.compression.learning import ContextMixer
from blt.errors import ModelFolderError
from blt.lm import DecodingSession, LanguageModel

Symbols = NDArray[np.int16]
OnCoded = Callable[[int], None]
"""Told how many more symbols have been coded."""

COLUMNS = 16
"""Symbols of a row that the encoder reads at once."""


@dataclass(frozen=True, kw_only=True)
class Coding:
    """What encoder and decoder must agree upon, besides the model."""

    context: int
    """Symbols of one document after which the model begins anew; 0: never."""
    tells_documents: bool
    """Whether ends of documents are symbols."""
    learns: bool
    """Whether contexts that were seen are mixed in (`ContextMixer`)."""
    rows: int
    """Streams that are coded at once."""


def encode_rows(
    lm: LanguageModel, rows: Sequence[Symbols], checks: Sequence[int], coding: Coding, *, progress: OnCoded
) -> list[bytes]:
    """Encode one batch of rows."""
    lows, counts = symbol_ranges(lm, rows, coding, progress=progress)
    return rans.encode(lows, counts, [len(row) for row in rows], checks)


def symbol_ranges(
    lm: LanguageModel, rows: Sequence[Symbols], coding: Coding, *, progress: OnCoded
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which of the 2^24 slots each symbol of one batch of rows takes.

    A symbol with `count` slots costs 24 − log2(count) bits.

    Returns:
        Where its slots begin, and how many they are, both `N T`; where a row is over, 0 and 1.

    Raises:
        ModelFolderError: at some position the frequencies are no distribution.
    """
    predictor = _Predictor(lm, [len(row) for row in rows], coding)
    shape = len(rows), predictor.longest
    padded = np.zeros(shape, np.int64)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    inputs = predictor.inputs(padded)
    lows, counts = np.zeros(shape, np.int64), np.ones(shape, np.int64)
    for active, first, last in predictor.spans(COLUMNS if predictor.is_exact_at_once else 1):
        found = predictor.read(inputs[active, first:last], active)  # N M S
        for column in range(first, last):
            symbols = padded[active, column]
            shares = predictor.mixed(found[:, column - first], active)
            bounds, numbers = shares.cumsum(1), np.arange(len(active))
            if (bounds[:, -1] != TOTAL).any() or (shares < 1).any():
                raise ModelFolderError(
                    "frequencies that are no distribution: they must be at least 1 and add up to 2^24"
                )
            counts[active, column] = shares[numbers, symbols]
            lows[active, column] = bounds[numbers, symbols] - counts[active, column]
            predictor.learn(symbols, active)
        progress(len(active) * (last - first))
    return lows, counts


def decode_rows(
    lm: LanguageModel,
    streams: Sequence[bytes],
    lengths: Sequence[int],
    coding: Coding,
    *,
    progress: OnCoded,
) -> tuple[list[Symbols], rans.Decoder]:
    """Decode one batch of rows.

    Returns:
        The symbols, and the decoder, which knows whether each stream was whole once their checks are given.
    """
    predictor, decoder = _Predictor(lm, lengths, coding), rans.Decoder(streams)
    found = np.zeros((len(lengths), predictor.longest), np.int64)
    ids = np.full(len(lengths), BOS_ID, np.int64)
    since = np.zeros(len(lengths), np.int64)
    for active, step, _ in predictor.spans(1):
        shares = predictor.mixed(predictor.read(ids[active][:, None], active)[:, 0], active)
        symbols = decoder.next(shares, active)
        found[active, step] = symbols
        predictor.learn(symbols, active)
        since[active] = np.where(ids[active] == BOS_ID, 1, since[active] + 1)
        ids[active] = _next_ids(symbols, since[active], coding.context)
        progress(len(active))
    return [row[:length].astype(np.int16) for row, length in zip(found, lengths, strict=True)], decoder


def _next_ids(symbols: NDArray[np.int64], since: NDArray[np.int64], context: int) -> NDArray[np.int64]:
    """Return what the model reads after some symbols, `since` symbols after the last BOS."""
    begins = symbols == END
    if context:
        begins |= since >= context
    return np.where(begins, BOS_ID, symbols + BYTE_OFFSET)


class _Predictor:
    """Frequencies of the next symbol of some rows, in step."""

    def __init__(self, lm: LanguageModel, lengths: Sequence[int], coding: Coding) -> None:
        self.lengths, self.longest, self._coding = list(lengths), max(lengths), coding
        self._session = DecodingSession(lm, max_rollback=COLUMNS, portable=True)
        self._rows = self._session.start(len(lengths))
        self._mixer = ContextMixer(len(lengths), num_symbols=END + coding.tells_documents) if coding.learns else None

    @property
    def is_exact_at_once(self) -> bool:
        """Whether many bytes at once give the logits of one at a time, bit for bit."""
        return self._session.is_native

    def spans(self, most: int) -> Iterator[tuple[NDArray[np.int64], int, int]]:
        """Divide all positions into at most `most` columns at a time of the rows that are not over."""
        ends = np.array(self.lengths)
        for begin, end in pairwise([0, *sorted({length for length in self.lengths if length})]):
            active = np.flatnonzero(ends > begin)
            for first in range(begin, end, most):
                yield active, first, min(first + most, end)

    def inputs(self, symbols: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what the model reads before each symbol, row by row."""
        ids = np.full(symbols.shape, BOS_ID, np.int64)
        since = np.zeros(len(symbols), np.int64)
        for step in range(symbols.shape[1] - 1):
            since = np.where(ids[:, step] == BOS_ID, 1, since + 1)
            ids[:, step + 1] = _next_ids(symbols[:, step], since, self._coding.context)
        return ids

    def read(self, ids: NDArray[np.int64], active: NDArray[np.int64]) -> NDArray[np.int64]:
        """Read ids in some rows; return the model's frequencies of the symbol after each, `N M S`."""
        logits = self._session.read(
            torch.from_numpy(np.ascontiguousarray(ids)).to(self._session.lm.device), self._rows[active]
        )
        flat = logits.float().cpu().numpy().reshape(ids.size, -1)
        found = frequencies(flat, with_end=self._coding.tells_documents)
        return found.reshape(*ids.shape, -1)

    def mixed(self, found: NDArray[np.int64], active: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the frequencies that are coded with, `N S`."""
        return found if self._mixer is None else self._mixer.mix(found, active)

    def learn(self, symbols: NDArray[np.int64], active: NDArray[np.int64]) -> None:
        """Update the mixer with symbols, once they are coded."""
        if self._mixer is not None:
            self._mixer.update(symbols, active)


_SAMPLE = (
    "Once upon a time, there was a little girl named Lily.",
    'def add(a, b):\n    return a + b\n\n{"x": [1, 2.5e-3, null]}',
    "Ein Bär trank Öl; Привет, мир! 你好，世界。 🙂",
)


def self_test(lm: LanguageModel) -> int:
    """Return the CRC-32 of the frequencies that a fixed sample is coded with here: equal where decoding is exact."""
    rows = [np.frombuffer(text.encode()[:48], np.uint8).astype(np.int64) for text in _SAMPLE]
    coding = Coding(context=20, tells_documents=True, learns=False, rows=len(rows))
    predictor = _Predictor(lm, [48] * len(rows), coding)
    inputs, found = predictor.inputs(np.stack(rows)), 0
    for active, step, _ in predictor.spans(1):
        found = zlib.crc32(predictor.read(inputs[:, step : step + 1], active).astype("<i4").tobytes(), found)
    return found
