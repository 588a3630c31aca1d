"""`compress` and `decompress`: bytes ⇄ a file that only the same model reads, exact or refused."""

import dataclasses
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from blt.compression.archive import DTYPES, MAX_BLOCK, Archive, Block, ModelPart
from blt.compression.coding import Coding, Symbols, decode_rows, encode_rows, self_test
from blt.compression.frequencies import END
from blt.configuration import check
from blt.errors import ConfigurationError, DataError, ModelFolderError
from blt.lm import DecodingSession, LanguageModel, fingerprint
from blt.progress import OnProgress

SEPARATOR = b"\n<|endoftext|>\n"
"""What ends a document in text files that hold many."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """What a level trades speed for size by."""

    added_threshold: float
    """Nats added to the threshold of an entropy rule: fewer, longer patches, of which each costs a step of the global
    transformer."""
    context: int
    """Bytes of one document after which the model begins anew; 0: never."""
    max_block: int
    """Most symbols of a block; a text has at least as many blocks as rows if each has 1,024."""
    rows: int = 32
    """Blocks that are coded at once: at 32 the native decoder is fastest on a few cores. Each costs about 12 bytes, and
    begins without what precedes it."""


LEVELS = {
    1: Level(added_threshold=0.6, context=1024, max_block=1 << 14),
    2: Level(added_threshold=0.0, context=2048, max_block=1 << 16),
    3: Level(added_threshold=0.0, context=0, max_block=MAX_BLOCK, rows=8),
}
DEFAULT_LEVEL = 2
_MIN_BLOCK = 1024


def compress(
    lm: LanguageModel,
    data: bytes,
    *,
    level: int = DEFAULT_LEVEL,
    learn: bool = False,
    progress: OnProgress | None = None,
) -> bytes:
    """Compress bytes by a model's predictions.

    Args:
        lm: the model; as `int8` it is the fastest.
        data: anything; what the model does not shrink is stored as it is, so no file grows by more than 64 bytes.
        level: 1 to 3, see `LEVELS`.
        learn: whether contexts that were seen are mixed in while coding: the protocol `learning`.
        progress: told the symbols coded so far, and their total.

    Raises:
        ConfigurationError: no such level, or weights of a type that is not reproducible.
        ModelFolderError: the model's figures are no numbers.
    """
    check(level in LEVELS, f"level: {level!r} is none of {', '.join(map(str, LEVELS))}")
    chosen = LEVELS[level]
    separator = SEPARATOR if SEPARATOR in data else b""
    blocks = _cut(_symbols(data, separator), chosen, at_ends=bool(separator))
    return compress_blocks(
        lm, blocks, data=data, separator=separator, context=chosen.context, rows=chosen.rows, learn=learn,
        threshold=_threshold(lm, chosen.added_threshold), progress=progress,
    )  # fmt: skip


def compress_blocks(
    lm: LanguageModel,
    blocks: Sequence[Symbols],
    *,
    data: bytes,
    separator: bytes,
    context: int,
    rows: int,
    learn: bool,
    threshold: float,
    progress: OnProgress | None = None,
) -> bytes:
    """Compress symbols that have been divided already; `data` is what they stand for."""
    stored = Archive(num_bytes=len(data), checksum=zlib.crc32(data), model=None, blocks=[data])
    if not data:
        return stored.pack()
    coding = Coding(context=context, tells_documents=bool(separator), learns=learn, rows=rows)
    with _threshold_set(lm, threshold):
        threads = 0 if DecodingSession(lm, portable=True).is_native else torch.get_num_threads()
        test, streams, report = self_test(lm), [], _Report(sum(map(len, blocks)), progress)
        for first in range(0, len(blocks), rows):
            batch = blocks[first : first + rows]
            checks = [_check(first + at, _bytes(block, separator)) for at, block in enumerate(batch)]
            streams += encode_rows(lm, batch, checks, coding, progress=report)
    kept, table = [], []
    for block, stream in zip(blocks, streams, strict=True):
        plain = _bytes(block, separator)
        is_plain = len(stream) >= len(plain) + 4 and not learn  # a row that learns must be read by all
        kept.append(zlib.crc32(plain).to_bytes(4, "little") + plain if is_plain else stream)
        table.append(Block(num_symbols=len(block), num_bytes=len(kept[-1]), is_plain=is_plain))
    model = ModelPart(
        fingerprint=bytes.fromhex(fingerprint(lm)), dtype=_dtype(lm), threads=threads, context=context, rows=rows,
        threshold=threshold, separator=separator, learns=learn, self_test=test, blocks=table,
    )  # fmt: skip
    coded = Archive(num_bytes=len(data), checksum=zlib.crc32(data), model=model, blocks=kept).pack()
    return coded if len(coded) < len(stored.pack()) else stored.pack()


def decompress(lm: LanguageModel | None, archive: Archive, *, progress: OnProgress | None = None) -> bytes:
    """Return the bytes that were compressed, all of them exact.

    Args:
        lm: the model, loaded as `archive.model.dtype`; None only where the text is stored as it is.
        archive: the file.
        progress: told the symbols coded so far, and their total.

    Raises:
        ModelFolderError: another model, or one whose figures differ here.
        DataError: a damaged block; the message names the first.
    """
    if archive.model is None:
        data = archive.blocks[0]
    else:
        assert lm is not None, "a coded archive needs a model"
        data = b"".join(_decoded_blocks(lm, archive.model, archive.blocks, progress))
    if len(data) != archive.num_bytes or zlib.crc32(data) != archive.checksum:
        raise DataError("the compressed file is damaged: what it decodes to does not have the checksum it should")
    return data


def _decoded_blocks(
    lm: LanguageModel, model: ModelPart, blocks: Sequence[bytes], progress: OnProgress | None
) -> Iterator[bytes]:
    if bytes.fromhex(fingerprint(lm)) != model.fingerprint or _dtype(lm) != model.dtype:
        raise ModelFolderError(
            f"another model: the file was compressed by {model.fingerprint.hex()} in {model.dtype}, "
            f"and this is {fingerprint(lm)} in {_dtype(lm)}; give the same one by --model"
        )
    coding = Coding(context=model.context, tells_documents=bool(model.separator), learns=model.learns, rows=model.rows)
    report = _Report(sum(block.num_symbols for block in model.blocks), progress)
    with _threshold_set(lm, model.threshold), _same_kernels(lm, model):
        if self_test(lm) != model.self_test:
            raise ModelFolderError(
                "the model's figures differ here from those where the file was compressed "
                f"({_kernels(model.threads)}), so it cannot be decoded; nothing has been written"
            )
        for first in range(0, len(blocks), model.rows):
            batch = slice(first, first + model.rows)
            yield from _decoded_batch(lm, model, blocks[batch], model.blocks[batch], coding, first, report)


def _decoded_batch(
    lm: LanguageModel, model: ModelPart, blocks: Sequence[bytes], table: Sequence[Block], coding: Coding, first: int,
    report: "_Report",
) -> Iterator[bytes]:  # fmt: skip
    lengths = [0 if block.is_plain else block.num_symbols for block in table]
    symbols, decoder = decode_rows(lm, blocks, lengths, coding, progress=report)
    found = [
        stored[4:] if block.is_plain else _bytes(row, model.separator)
        for stored, block, row in zip(blocks, table, symbols, strict=True)
    ]
    are_whole = decoder.are_whole([_check(first + at, data) for at, data in enumerate(found)])
    for at, (stored, block, data) in enumerate(zip(blocks, table, found, strict=True)):
        is_whole = zlib.crc32(data).to_bytes(4, "little") == stored[:4] if block.is_plain else are_whole[at]
        if not is_whole:
            raise DataError(
                f"the compressed file is damaged in block {first + at + 1} of {len(model.blocks)}; "
                "nothing has been written"
            )
        yield data


def _symbols(data: bytes, separator: bytes) -> Symbols:
    """Return bytes as symbols, each separator as one."""
    if not separator:
        return np.frombuffer(data, np.uint8).astype(np.int16)
    parts = [np.frombuffer(part, np.uint8).astype(np.int16) for part in data.split(separator)]
    end = np.array([END], np.int16)
    return np.concatenate([piece for part in parts for piece in (part, end)][:-1])


def _bytes(symbols: Symbols, separator: bytes) -> bytes:
    """Return the bytes that symbols stand for."""
    cuts = np.flatnonzero(symbols == END)
    return separator.join(part[part != END].astype(np.uint8).tobytes() for part in np.split(symbols, cuts))


def _cut(symbols: Symbols, level: Level, *, at_ends: bool) -> list[Symbols]:
    """Divide symbols into blocks of about equal length, after the end of a document where one is near."""
    size = min(max(-(-len(symbols) // level.rows), _MIN_BLOCK), level.max_block)
    cuts, ends = [0], np.flatnonzero(symbols == END) + 1 if at_ends else np.zeros(0, np.int64)
    while len(symbols) - cuts[-1] > size:
        cut = cuts[-1] + size
        near = ends[(ends > cut - size // 2) & (ends <= cut)]
        cuts.append(int(near[-1]) if len(near) else cut)
    return [symbols[first:last] for first, last in zip(cuts, [*cuts[1:], len(symbols)], strict=True)]


def _check(number: int, data: bytes) -> int:
    """Return 31 bits that tell a block from others, and from itself in another place."""
    return zlib.crc32(data, number) & 0x7FFFFFFF


def _threshold(lm: LanguageModel, added: float) -> float:
    own = getattr(lm.patch_rule, "threshold", None)
    return math.nan if own is None or not added else float(own) + added


@contextmanager
def _threshold_set(lm: LanguageModel, threshold: float) -> Iterator[None]:
    """Set the patch rule's threshold within the context; NaN: its own."""
    own = lm.patch_rule
    if not math.isnan(threshold):
        if not hasattr(own, "threshold"):
            raise ModelFolderError("another model: the file was compressed by one whose patch rule has a threshold")
        lm.patch_rule = dataclasses.replace(own, threshold=threshold)  # type: ignore[arg-type]
    try:
        yield
    finally:
        lm.patch_rule = own


@contextmanager
def _same_kernels(lm: LanguageModel, model: ModelPart) -> Iterator[None]:
    """Compute as the encoder did: portably, or by PyTorch on as many threads."""
    is_native = DecodingSession(lm, portable=True).is_native
    if is_native != (model.threads == 0):
        here = "the native decoder" if is_native else "PyTorch"
        way = "set BLT_NATIVE=0" if is_native else "`blt doctor` says why there is no native decoder"
        raise ModelFolderError(
            f"the file was compressed by {_kernels(model.threads)}, and here {here} computes, to other last bits; {way}"
        )
    before = torch.get_num_threads()
    if model.threads:
        torch.set_num_threads(model.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _kernels(threads: int) -> str:
    return f"PyTorch on {threads} threads" if threads else "the native decoder"


def _dtype(lm: LanguageModel) -> str:
    """Return the type of a model's weights."""
    found = {str(weight.dtype).removeprefix("torch.") for weight in lm.blt.state_dict().values()}
    dtype = "int8" if "int8" in found else next(iter(found)) if len(found) == 1 else ""
    if dtype not in DTYPES:
        raise ConfigurationError(
            f"dtype: weights as {' and '.join(sorted(found))}; load the model as {', '.join(DTYPES)}"
        )
    return dtype


class _Report:
    """Adds up what has been coded."""

    def __init__(self, total: int, progress: OnProgress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def __call__(self, more: int) -> None:
        self._done += more
        if self._progress is not None:
            self._progress(self._done, self._total)
