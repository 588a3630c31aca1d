"""Input files as streams of bytes: decompressed by their name, refused when they are plainly something else."""

import bz2
import gzip
import io
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from blt.data.kinds import check_first_bytes, compression_of
from blt.data.store import StoreStream, is_address
from blt.data.zstandard_stream import ZstandardStream, ZstandardStreamError
from blt.errors import DataError

BUFFER_BYTES = 1 << 20
"""How much is read at a time."""


@contextmanager
def open_stream(
    path: str | Path,
    *,
    name: str,
    holds: str = "text",
    is_given: bool = False,
    copy: BinaryIO | None = None,
    on_read: Callable[[int], None] | None = None,
) -> Iterator[io.BufferedReader]:
    """Open an input and decompress it on the way.

    Args:
        path: a file, or `-` for standard input.
        name: what to call it in messages.
        holds: what is expected inside: "text" or "Parquet".
        is_given: whether the user said what it holds; then anything passes for text.
        copy: an open file to read instead, from its start, where the input itself can be read only once.
        on_read: told how many bytes of the file itself were read, whenever some are.

    Raises:
        DataError: it is missing, a folder, unreadable, empty, damaged, cut short, or of another kind.
        MissingExtraError: it needs the package `zstandard`, which is not installed.
    """
    compression = compression_of(path)
    with ExitStack() as stack, read_errors(name):
        raw = _Counted(_rewound(copy) if copy else open_raw(path, name, stack), on_read or (lambda _: None))
        stream: io.BufferedReader = stack.enter_context(io.BufferedReader(cast(io.RawIOBase, raw), BUFFER_BYTES))
        check_first_bytes(stream.peek(512), name, expected=compression or holds, is_given=is_given)
        if compression:
            unpacked: io.RawIOBase = _Unpacked(stack.enter_context(_decompress(stream, compression)))
            stream = stack.enter_context(io.BufferedReader(unpacked, BUFFER_BYTES))
            check_first_bytes(stream.peek(512), name, expected=holds, is_given=is_given)
        yield stream


@contextmanager
def read_errors(name: str) -> Iterator[None]:
    """Turn whatever goes wrong while an input is read into one line about it."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, ZstandardStreamError) as error:
        raise DataError(f"{name}: cannot be decompressed ({error}); fetch or pack it again") from None
    except EOFError:
        raise DataError(f"{name}: was cut short, its compressed data has no end; fetch or pack it again") from None
    except OSError as error:
        if error.errno is None:  # the package bz2 says so
            raise DataError(f"{name}: cannot be decompressed ({error}); fetch or pack it again") from None
        raise DataError(f"{name}: cannot be read ({error.strerror}); check the file") from None
    except MemoryError:
        raise DataError(f"{name}: needs more memory than there is; divide it into smaller documents") from None


def open_raw(path: str | Path, name: str, stack: ExitStack) -> io.RawIOBase | io.BufferedIOBase:
    """Open an input as it is, `-` for standard input; one in a store is known by its name, which is its address.

    Raises:
        DataError: it is missing, a folder, or a device without end.
    """
    if str(path) == "-":
        if sys.stdin is None:
            raise DataError(f"{name}: is closed; give a file")
        return cast(io.BufferedIOBase, sys.stdin.buffer)
    if is_address(name):
        return StoreStream(name)
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        raise DataError(f"{name}: does not exist; check the path") from None
    except ValueError as error:
        raise DataError(f"{name}: is no path ({error}); check the path") from None
    if stat.S_ISDIR(mode):
        raise DataError(f"{name}: is a folder; give the files in it, such as {name}/*.txt")
    file = stack.enter_context(Path(path).open("rb", buffering=0))  # noqa: SIM115 (the stack closes it)
    if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not file.isatty() and not _is_null(file)):
        raise DataError(f"{name}: is a device; give a file")
    return file


def _is_null(file: io.FileIO) -> bool:
    return os.fstat(file.fileno()).st_rdev == Path(os.devnull).stat().st_rdev


def _rewound(file: BinaryIO) -> io.BufferedIOBase:
    file.seek(0)
    return cast(io.BufferedIOBase, file)


def _decompress(stream: io.BufferedReader, compression: str) -> Any:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=stream, mode="rb")
    if compression == "bzip2":
        return bz2.BZ2File(cast(Any, stream), "rb")
    if compression == "xz":
        return lzma.LZMAFile(cast(Any, stream), "rb")
    return ZstandardStream(stream)


class _Unpacked(io.RawIOBase):
    """What comes out of a decompressor, to be read once; to seek in it would begin anew."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._file.readinto(buffer)
        return count


class _Counted(io.RawIOBase):
    """A file that tells how much of it was read; it is left open."""

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
