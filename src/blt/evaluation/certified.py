"""`certify`: bits per byte that were coded and decoded again, so that no leak can hide in the figure.

Documents are laid end to end, each as its bytes and an end, and that text is cut between documents into streams. Each
stream is coded by the integer frequencies that the model predicts (`blt.compression`), then decoded from its bits
alone, and what comes back must be the text. The figure is the size of the streams, and of the list of their lengths.
"""

import math
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from blt.api import ByteLM
from blt.compression import rans
from blt.compression.coding import Coding, Symbols, decode_rows, symbol_ranges
from blt.compression.frequencies import END, PRECISION
from blt.data import Shards
from blt.errors import CertificationError, ModelFolderError
from blt.evaluation.bootstrap import ratio
from blt.evaluation.evaluate import Evaluation, evaluate
from blt.lm import DecodingSession, fingerprint
from blt.progress import OnProgress

STREAMS = 32
"""Streams that are coded at once."""
LEAST_SYMBOLS = 8192
"""About the fewest symbols of a stream, where the text has as many; a stream costs about 8 bytes beside its symbols."""
MOST_SYMBOLS = 1 << 16
"""About the most symbols of a stream of more than one document."""

CONDITIONS = {
    "strictly causal": "every byte was decoded from the streams and the bytes before it alone, and is the byte of the "
    "text",
    "full normalised distribution": "before every symbol, the frequencies of all 256 bytes and of the end of the "
    "document were at least 1 and added up to 2^24",
    "scored before any update": "no weight changes: their fingerprint is the same before and after",
    "one pass": "every byte and every end of a document was coded once, in the order of the text",
}
"""What makes a figure comparable, each with how it was checked. A certification exists only where all four hold."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Certification:
    """A figure that was coded and decoded again. A unit is a document."""

    bits_per_byte: float
    """Bits of the streams and of the list of their lengths, divided by the bytes of the text."""
    interval_low: float
    """Lower end of the 95% bootstrap interval of `bits_per_byte` over documents; NaN without one."""
    interval_high: float
    """Upper end."""
    frequency_bits_per_byte: float
    """Bits by the integer frequencies, 24 − log2(frequency) a symbol: the size if the coder itself cost nothing."""
    num_coded_bytes: int
    """Bytes of the streams and of the list of their lengths."""
    num_streams: int
    """How many streams."""
    kernels: str
    """What computed the logits, on both ways."""
    seconds_encoding: float
    """Wall-clock time."""
    seconds_decoding: float
    """Wall-clock time."""
    bits_by_unit: NDArray[np.float64] = field(repr=False)
    """Bits of each document; what the streams need beside their symbols is shared in proportion."""
    plain: Evaluation = field(repr=False)
    """The same documents by `evaluate`, which codes nothing."""

    @property
    def difference(self) -> float:
        """Bits per byte above the plain figure."""
        return self.bits_per_byte - self.plain.bits_per_byte

    def to_dict(self, *, units: bool = False) -> dict[str, Any]:
        """Return plain values for JSON, without those of `plain`; a missing interval is null.

        Args:
            units: with the bits of every document.
        """
        left_out = ("bits_by_unit", "plain")
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out}
        values |= {
            "plain_bits_per_byte": self.plain.bits_per_byte,
            "difference": self.difference,
            "relative_difference": self.difference / self.plain.bits_per_byte,
            "conditions": CONDITIONS,
        }
        values = {
            name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()
        }
        return values | ({"bits_by_unit": self.bits_by_unit.tolist()} if units else {})


def certify(
    lm: ByteLM,
    documents: Shards | Iterable[bytes],
    *,
    seed: int = 0,
    bootstrap: int = 1000,
    progress: OnProgress | None = None,
) -> Certification:
    """Measure bits per byte by the protocol `documents`, by coding every document and decoding it again.

    Args:
        lm: the model.
        documents: raw bytes of each, or a split of a prepared folder; empty documents are left out.
        seed: of the bootstrap.
        bootstrap: how many times to resample for the interval; 0 for none.
        progress: told the symbols coded and decoded so far, and their total.

    Raises:
        CertificationError: what was decoded is not the text, or the weights changed on the way.
        ConfigurationError: a negative number of resamples.
        DataError: there is no document.
        ModelFolderError: the model's figures are no numbers, or no distribution.
    """
    shards = documents if isinstance(documents, Shards) else Shards.from_documents(list(documents))
    plain = evaluate(lm, shards, seed=seed, bootstrap=bootstrap)
    run = _Run(2 * (shards.num_bytes + shards.num_documents), progress)
    symbols = [np.append(shards.document(number), END).astype(np.int16) for number in range(shards.num_documents)]
    for batch in _batches(symbols):
        run.code(lm, batch)
    assert run.num_symbols == shards.num_bytes + shards.num_documents, "every byte and every end is coded exactly once"
    if (now := fingerprint(lm)) != plain.model_fingerprint:
        raise CertificationError(f"the weights changed on the way, from {plain.model_fingerprint} to {now}")
    bits = np.array(run.bits)
    shared = bits * (8 * run.num_coded_bytes / bits.sum())
    figure = ratio(shared, plain.bytes_by_unit, resamples=bootstrap, seed=seed)
    return Certification(
        bits_per_byte=8 * run.num_coded_bytes / shards.num_bytes,
        interval_low=figure.low,
        interval_high=figure.high,
        frequency_bits_per_byte=float(bits.sum() / shards.num_bytes),
        num_coded_bytes=run.num_coded_bytes,
        num_streams=run.num_streams,
        kernels=_kernels(lm),
        seconds_encoding=run.seconds_encoding,
        seconds_decoding=run.seconds_decoding,
        bits_by_unit=shared,
        plain=plain,
    )


class _Run:
    """What has been coded and decoded so far."""

    def __init__(self, total: int, progress: OnProgress | None) -> None:
        self.bits: list[float] = []
        self.num_coded_bytes = self.num_streams = self.num_symbols = 0
        self.seconds_encoding = self.seconds_decoding = 0.0
        self._done, self._total, self._progress = 0, total, progress

    def code(self, lm: ByteLM, rows: Sequence[Sequence[Symbols]]) -> None:
        """Code some streams of documents, and decode them again.

        Raises:
            CertificationError: what comes back is something else.
        """
        coding = Coding(context=0, tells_documents=True, learns=False, rows=len(rows))
        texts = [np.concatenate(row) for row in rows]
        lengths = [len(text) for text in texts]
        checks = [zlib.crc32(text.tobytes()) & 0x7FFFFFFF for text in texts]
        start = time.perf_counter()
        lows, counts = symbol_ranges(lm, texts, coding, progress=self._report)
        streams = rans.encode(lows, counts, lengths, checks)
        middle = time.perf_counter()
        try:
            found, decoder = decode_rows(lm, streams, lengths, coding, progress=self._report)
        except (IndexError, ModelFolderError) as error:
            raise CertificationError(f"what was coded cannot be decoded: {error}") from error
        self.seconds_encoding += middle - start
        self.seconds_decoding += time.perf_counter() - middle
        _compare(texts, found, first=self.num_symbols)
        if not decoder.are_whole(checks).all():
            raise CertificationError("decoding gave the text, but did not end where coding began")
        bits = PRECISION - np.log2(counts)
        for row, costs in zip(rows, bits, strict=True):
            ends = np.cumsum([len(document) for document in row])
            self.bits += [float(part.sum()) for part in np.split(costs[: ends[-1]], ends[:-1])]
        self.num_streams += len(streams)
        self.num_symbols += sum(lengths)
        self.num_coded_bytes += sum(map(len, streams)) + sum(-(-length.bit_length() // 7) for length in lengths)

    def _report(self, more: int) -> None:
        self._done += more
        if self._progress is not None:
            self._progress(self._done, self._total)


def _compare(texts: Sequence[Symbols], found: Sequence[Symbols], *, first: int) -> None:
    """Refuse decoded streams that are not the text."""
    wanted, got = np.concatenate(texts), np.concatenate(found)
    (differs,) = np.nonzero(wanted != got)
    if len(differs):
        place = int(differs[0])
        raise CertificationError(
            f"decoding gave other bytes than the text: the first is number {first + place:,}, {int(got[place])} where "
            f"the text has {int(wanted[place])}; the model's figures depend on more than the bytes before, or differ "
            "from one reading to the next, so its bits per byte are not to be trusted"
        )


def _batches(documents: Sequence[Symbols]) -> Iterable[list[list[Symbols]]]:
    """Divide documents, in order, into streams of about equal length, and these into batches."""
    lengths = [len(document) for document in documents]
    total = sum(lengths)
    num_streams = min(max(total // LEAST_SYMBOLS, 1), STREAMS * -(-total // (STREAMS * MOST_SYMBOLS)))
    middles = np.cumsum(lengths) - np.array(lengths) / 2
    numbers = np.minimum((middles * num_streams / total).astype(np.int64), num_streams - 1)
    streams: dict[int, list[Symbols]] = {}
    for number, document in zip(numbers.tolist(), documents, strict=True):
        streams.setdefault(number, []).append(document)
    rows = list(streams.values())
    for start in range(0, len(rows), STREAMS):
        yield rows[start : start + STREAMS]


def _kernels(lm: ByteLM) -> str:
    """Name what computes the logits."""
    if DecodingSession(lm, portable=True).is_native:
        return "native decoder, portable"
    return f"PyTorch on {lm.device.type}, {torch.get_num_threads()} threads"
