"""Input files as streams of bytes: decompressed by their name, refused when they are plainly something else."""

import gzip
import io
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from blt.errors import DataError, MissingExtraError

COMPRESSIONS = {".gz": "gzip", ".xz": "xz", ".zst": "Zstandard"}
"""Name endings that are taken off, and what they stand for."""

_BUFFER_BYTES = 1 << 20
_MAGIC = {
    "gzip": rb"\x1f\x8b\x08",
    "xz": rb"\xfd7zXZ\x00",
    "Zstandard": rb"\x28\xb5\x2f\xfd",
    "Parquet": rb"PAR1",
    "bzip2": rb"BZh[1-9]1AY&SY",
    "zip": rb"PK\x03\x04",
    "tar": rb".{257}ustar",
    "PDF": rb"%PDF-",
    "PNG": rb"\x89PNG\r\n",
    "NumPy": rb"\x93NUMPY",
    "Arrow": rb"ARROW1\x00\x00",
    "SQLite": rb"SQLite format 3\x00",
    "ELF": rb"\x7fELF[\x01\x02]",
}
_ENDINGS = {"gzip": ".gz", "xz": ".xz", "Zstandard": ".zst", "Parquet": ".parquet"}


@contextmanager
def open_stream(
    path: str | Path, *, name: str, holds: str = "text", on_read: Callable[[int], None] | None = None
) -> Iterator[io.BufferedIOBase]:
    """Open an input and decompress it on the way.

    Args:
        path: a file, or `-` for standard input.
        name: what to call it in messages.
        holds: what is expected inside: "text" or "Parquet".
        on_read: told how many bytes of the file itself were read, whenever some are.

    Raises:
        DataError: it is missing, a folder, unreadable, empty, damaged, cut short, or of another kind.
        MissingExtraError: it needs the package `zstandard`, which is not installed.
    """
    compression = COMPRESSIONS.get(Path(path).suffix)
    with ExitStack() as stack, read_errors(name):
        raw = _Counted(_open_raw(path, name, stack), on_read or (lambda _: None))
        stream: io.BufferedIOBase = stack.enter_context(io.BufferedReader(raw, _BUFFER_BYTES))
        _check_kind(stream, name, expected=compression or holds)
        if compression:
            stream = stack.enter_context(_decompress(stream, compression))
            _check_kind(stream, name, expected=holds)
        yield stream


@contextmanager
def read_errors(name: str) -> Iterator[None]:
    """Turn whatever goes wrong while an input is read into one line about it."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, _ZstandardError) as error:
        raise DataError(f"{name}: cannot be decompressed ({error}); fetch or pack it again") from None
    except EOFError:
        raise DataError(f"{name}: was cut short, its compressed data has no end; fetch or pack it again") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error}); check the file") from None


def _open_raw(path: str | Path, name: str, stack: ExitStack) -> io.RawIOBase | io.BufferedIOBase:
    if str(path) == "-":
        return cast(io.BufferedIOBase, sys.stdin.buffer)
    if Path(path).is_dir():
        raise DataError(f"{name}: is a folder; give the files in it, such as {name}/*.txt")
    try:
        return stack.enter_context(Path(path).open("rb", buffering=0))
    except FileNotFoundError:
        raise DataError(f"{name}: does not exist; check the path") from None


def _check_kind(stream: Any, name: str, *, expected: str) -> None:
    """Refuse an empty stream, and one whose first bytes say that it is something else than its name says."""
    head = stream.peek(512)
    if not head:
        raise DataError(f"{name}: is empty; expected documents")
    found = next((kind for kind, magic in _MAGIC.items() if re.match(magic, head, re.DOTALL)), None)
    if found in (None, expected):
        return
    ending = _ENDINGS.get(str(found))
    way_out = f"end its name in {ending}" if ending else "extract its text first"
    raise DataError(f"{name}: is {found} by its first bytes, where {expected} was expected; {way_out}")


def _decompress(stream: io.BufferedIOBase, compression: str) -> io.BufferedIOBase:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=stream, mode="rb")
    if compression == "xz":
        return lzma.LZMAFile(cast(Any, stream), "rb")
    return io.BufferedReader(_Zstandard(stream), _BUFFER_BYTES)


class _Counted(io.RawIOBase):
    """A file that tells how much of it was read."""

    def __init__(self, file: io.RawIOBase | io.BufferedIOBase, on_read: Callable[[int], None]) -> None:
        self._file = file
        self._on_read = on_read

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer)) or b""
        buffer[: len(data)] = data
        self._on_read(len(data))
        return len(data)


class _ZstandardError(Exception):
    """What `zstandard` raises, without importing it."""


class _Zstandard(io.RawIOBase):
    """Zstandard frames one after another; unlike the package's own reader, it notices a cut."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        try:
            import zstandard
        except ImportError:
            raise MissingExtraError("zstandard", extra="data", purpose="reading .zst files") from None
        self._error = zstandard.ZstdError
        self._new_frame = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
        self._file = file
        self._frame: Any = None
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._pending:
            packed = self._file.read(1 << 16)
            if not packed and self._frame is not None:
                raise EOFError
            if not packed:
                return 0
            self._pending = self._unpack(packed)
        count = min(len(buffer), len(self._pending))
        buffer[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    def _unpack(self, packed: bytes) -> bytes:
        pieces = []
        while packed:
            self._frame = self._frame or self._new_frame()
            try:
                pieces.append(self._frame.decompress(packed))
            except self._error as error:
                raise _ZstandardError(str(error)) from None
            packed = self._frame.unused_data if self._frame.eof else b""
            self._frame = None if self._frame.eof else self._frame
        return b"".join(pieces)
