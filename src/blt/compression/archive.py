"""The format of a compressed file: everything that decoding depends on, named and checked before it is used.

    magic 4 · version 1 · flags 1 · length of the header 4 · header · CRC-32 of all before 4 · blocks

The header holds, in this order, numbers as LEB128: bytes of the text, its CRC-32; then, unless the text is stored as
it is, fingerprint and dtype of the model, kernels, context, rows, threshold, separator, CRC-32 of the self-test, and
for each block its symbols and its bytes. Blocks that the model does not shrink are stored as they are, after their
CRC-32; the others carry 31 bits of it in the coder's state (`rans`).
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from blt.errors import DataError

MAGIC = b"BLTz"
VERSION = 2  # also where the same weights give other bits than before
DTYPES = ("float32", "bfloat16", "int8")
"""Types of weights whose logits can be the same everywhere, as the format numbers them."""
_START = struct.Struct("<4sBBI")
_STORED, _DOCUMENTS, _LEARNS = 1, 2, 4
_MAX_ROWS = 1024
_MAX_THREADS = 1024
MAX_BLOCK = 1 << 17
"""Most symbols of a block. A few bytes can encode any number of symbols, so this bounds the cost of decoding."""
_MAX_DIGITS = 10
"""Most bytes of a number in LEB128: 70 bits."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Where a part of the text lies."""

    num_symbols: int
    num_bytes: int
    """In the file."""
    is_plain: bool


@dataclass(frozen=True, kw_only=True)
class ModelPart:
    """What must be there to decode."""

    fingerprint: bytes
    """Of the weights, 8 bytes."""
    dtype: str
    threads: int
    """0: the native decoder, portably; else PyTorch on this number of threads."""
    context: int
    rows: int
    threshold: float
    """Of the patch rule; NaN where the model's own is used."""
    separator: bytes
    """What stands for the end of a document in the text; empty where documents are not told apart."""
    learns: bool
    self_test: int
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A compressed file, read but not decoded."""

    num_bytes: int
    """Of the text."""
    checksum: int
    """CRC-32 of the text."""
    model: ModelPart | None
    """None where the text is stored as it is."""
    blocks: Sequence[bytes] = field(repr=False)

    def pack(self) -> bytes:
        """Return the file."""
        flags = _STORED if self.model is None else _LEARNS * self.model.learns | _DOCUMENTS * bool(self.model.separator)
        header = _number(self.num_bytes) + struct.pack("<I", self.checksum)
        if self.model is not None:
            header += _packed(self.model)
        start = _START.pack(MAGIC, VERSION, flags, len(header)) + header
        return b"".join([start, struct.pack("<I", zlib.crc32(start)), *self.blocks])

    @classmethod
    def unpack(cls, data: bytes) -> "Archive":
        """Read a file.

        Raises:
            DataError: none of ours, of another version, cut, or damaged in its header.
        """
        if data[:4] != MAGIC:
            raise DataError("the input is no file of `blt compress`: its first four bytes are not BLTz")
        if len(data) < _START.size:
            raise DataError(f"the compressed file is cut: {len(data)} bytes, fewer than its header")
        _, version, flags, length = _START.unpack_from(data)
        if version != VERSION:
            raise DataError(f"the compressed file is of format {version}; this version of blt reads {VERSION}")
        end = _START.size + length
        if len(data) < end + 4:
            raise DataError(f"the compressed file is cut: {len(data):,} bytes, and its header alone has {end + 4:,}")
        if zlib.crc32(data[:end]) != struct.unpack_from("<I", data, end)[0]:
            raise DataError("the compressed file is damaged: its header does not have the checksum it should")
        reader = _Reader(data[_START.size : end])
        num_bytes, checksum = reader.number(), struct.unpack("<I", reader.take(4))[0]
        model = None if flags & _STORED else _unpacked(reader, flags, num_bytes=num_bytes)
        sizes = [num_bytes] if model is None else [block.num_bytes for block in model.blocks]
        expected = end + 4 + sum(sizes)
        if len(data) != expected:
            what = "cut" if len(data) < expected else "followed by something else"
            raise DataError(f"the compressed file is {what}: {len(data):,} bytes where it has {expected:,}")
        blocks, at = [], end + 4
        for size in sizes:
            blocks.append(data[at : at + size])
            at += size
        return cls(num_bytes=num_bytes, checksum=checksum, model=model, blocks=blocks)


def _packed(model: ModelPart) -> bytes:
    parts = [model.fingerprint, bytes([DTYPES.index(model.dtype)])]
    parts += [_number(number) for number in (model.threads, model.context, model.rows)]
    parts += [struct.pack("<d", model.threshold), _number(len(model.separator)), model.separator]
    parts += [struct.pack("<I", model.self_test), _number(len(model.blocks))]
    for block in model.blocks:
        parts += [_number(block.num_symbols), _number(block.num_bytes * 2 + block.is_plain)]
    return b"".join(parts)


def _unpacked(reader: "_Reader", flags: int, *, num_bytes: int) -> ModelPart:
    fingerprint, dtype = reader.take(8), reader.take(1)[0]
    threads, context, rows = reader.number(), reader.number(), reader.number()
    (threshold,) = struct.unpack("<d", reader.take(8))
    separator = reader.take(reader.number())
    (self_test,) = struct.unpack("<I", reader.take(4))
    blocks = []
    for _ in range(reader.number()):
        num_symbols, size = reader.number(), reader.number()
        blocks.append(Block(num_symbols=num_symbols, num_bytes=size // 2, is_plain=bool(size % 2)))
    could_be = dtype < len(DTYPES) and 1 <= rows <= _MAX_ROWS and threads <= _MAX_THREADS
    could_be = could_be and all(1 <= block.num_symbols <= MAX_BLOCK for block in blocks)
    if not could_be or sum(block.num_symbols for block in blocks) > num_bytes:
        raise DataError("the compressed file is damaged: its header holds numbers that cannot be")
    return ModelPart(
        fingerprint=fingerprint,
        dtype=DTYPES[dtype],
        threads=threads,
        context=context,
        rows=rows,
        threshold=threshold,
        separator=separator,
        learns=bool(flags & _LEARNS),
        self_test=self_test,
        blocks=blocks,
    )


def _number(value: int) -> bytes:
    """Write a number as LEB128: seven bits a byte, the lowest first."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


class _Reader:
    """Reads the header from front to back; its checksum has been verified."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        self._at += count
        if len(found) != count:
            raise DataError("the compressed file is damaged: its header ends too early")
        return found

    def number(self) -> int:
        value = 0
        for digit in range(_MAX_DIGITS):
            byte = self.take(1)[0]
            value |= (byte & 127) << 7 * digit
            if byte < 128:
                return value
        raise DataError("the compressed file is damaged: its header holds a number that cannot be")
