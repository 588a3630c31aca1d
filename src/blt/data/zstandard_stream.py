"""Zstandard as a stream that holds one block at a time and notices a cut."""

import io
from collections.abc import Iterator
from typing import Any

from blt.errors import MissingExtraError

_MAX_WINDOW = 1 << 31  # what `zstd --long=31` writes
_DICTIONARY_ID_BYTES = (0, 1, 2, 4)
_CONTENT_SIZE_BYTES = (0, 2, 4, 8)
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)


class ZstandardStreamError(Exception):
    """What `zstandard` raises, without importing it."""


class ZstandardStream(io.RawIOBase):
    """Zstandard frames one after another.

    The package's own readers either do not notice that the last frame is cut (`stream_reader`), or return at once all
    that was unpacked from what they were handed (`decompressobj`), and 64 kB can hold 2 GiB. So the frames are cut into
    their blocks here, of at most 128 KiB unpacked each, and handed over one by one. The layout is RFC 8878, section 3:
    magic, header, blocks of which the last is marked, and a checksum if the header says so.
    """

    def __init__(self, file: io.BufferedReader) -> None:
        """Wrap a compressed stream.

        Args:
            file: the packed bytes; left open.

        Raises:
            MissingExtraError: the package `zstandard` is not installed.
        """
        try:
            import zstandard
        except ImportError:
            raise MissingExtraError("zstandard", extra="data", purpose="reading .zst files") from None
        self._error: type[Exception] = zstandard.ZstdError
        self._new_frame = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj
        self._file = file
        self._pieces = self._unpack()
        self._pending = memoryview(b"")

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as one block does, and return how far that is; 0 at the end."""
        while not self._pending:
            try:
                self._pending = memoryview(next(self._pieces))
            except StopIteration:
                return 0
            except self._error as error:
                raise ZstandardStreamError(str(error)) from None
        count = min(len(buffer), len(self._pending))
        buffer[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    def _unpack(self) -> Iterator[bytes]:
        while magic := self._file.read(4):
            if int.from_bytes(magic, "little") in _SKIPPABLE:
                self._skip(int.from_bytes(self._exactly(4), "little"))
                continue
            frame = self._new_frame()
            descriptor = self._exactly(1)
            yield frame.decompress(magic + descriptor + self._exactly(_header_bytes(descriptor[0])))
            is_last = False
            while not is_last:
                header = self._exactly(3)
                value = int.from_bytes(header, "little")
                is_last, is_run, size = bool(value & 1), value >> 1 & 3 == 1, value >> 3
                yield frame.decompress(header + self._exactly(1 if is_run else size))
            if descriptor[0] & 4:
                yield frame.decompress(self._exactly(4))

    def _exactly(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def _skip(self, count: int) -> None:
        while count:
            count -= len(self._exactly(min(count, io.DEFAULT_BUFFER_SIZE)))


def _header_bytes(descriptor: int) -> int:
    """Return how many bytes of the frame's header follow its descriptor."""
    has_window = not descriptor & 32
    content_size = _CONTENT_SIZE_BYTES[descriptor >> 6] or (0 if has_window else 1)
    return has_window + _DICTIONARY_ID_BYTES[descriptor & 3] + content_size
