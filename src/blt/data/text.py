"""Text, divided into documents by separator lines."""

import io
import logging
import re
from collections.abc import Iterator

from blt.data.document_limit import DocumentBuffer
from blt.data.kinds import BYTE_ORDER_MARK, warn_of_byte_order_mark
from blt.data.streams import BUFFER_BYTES

SEPARATOR = b"<|endoftext|>"
"""The line that divides the documents of a text."""

_MAX_BLANKS = 64
_REST_OF_LINE = re.compile(rb"[ \t]{0,%d}(\r\n|\n|\r|\Z)" % _MAX_BLANKS)
_LOOK_AHEAD = len(SEPARATOR) + _MAX_BLANKS + 2
_BEFORE = 2  # a newline before a separator is no longer
_LOGGER = logging.getLogger("blt.data")


def divide_text(stream: io.BufferedReader, *, name: str, max_document_bytes: int) -> Iterator[bytes]:
    """Return the documents of a text, empty ones too.

    Args:
        stream: the text.
        name: what to call it in messages.
        max_document_bytes: a longer document is refused.

    Raises:
        DataError: a document is too long.
    """
    return _TextDivider(stream, name=name, max_document_bytes=max_document_bytes).run()


class _TextDivider:
    r"""Searches chunks for the separator, so that neither lines nor documents are held twice.

    `_data` is what is not decided yet: from where a document begins, or from `_BEFORE` bytes before where a separator
    may still begin. So a separator and the newline before it are always in it as a whole, and a separator is decided on
    only when the rest of its line is there too. It counts if it has a line of its own, blanks after it aside; the
    newline of that line (`\n`, `\r\n` or, if one comes before it too, `\r`) belongs to it, and so does the one before.
    Anywhere else it is text, and the user is warned.
    """

    def __init__(self, stream: io.BufferedReader, *, name: str, max_document_bytes: int) -> None:
        self._stream = stream
        self._name = name
        self._document = DocumentBuffer(name, max_bytes=max_document_bytes)
        self._data = b""
        self._is_fresh = True  # whether `_data` begins where a document does
        self._line = 1  # number of the line that `_data` begins in
        self._newline: bytes | None = None  # of the newest separator
        self._num_missed = self._first_missed = 0

    def run(self) -> Iterator[bytes]:
        self._data = self._stream.read(len(BYTE_ORDER_MARK))
        if self._data == BYTE_ORDER_MARK:
            self._data = b""
            warn_of_byte_order_mark(self._name)
        is_at_end = False
        while not is_at_end:
            chunk = self._stream.read1(BUFFER_BYTES)
            is_at_end = not chunk
            self._data += chunk
            yield from self._divide(is_at_end=is_at_end)
        last = self._data if self._newline is None else _without_newline(self._data, self._newline)
        yield self._take(last)
        self._warn_of_missed()

    def _divide(self, *, is_at_end: bool) -> Iterator[bytes]:
        """Yield the documents that are complete, and pass on what surely belongs to the open one."""
        data, start, position = self._data, 0, 0
        while (found := data.find(SEPARATOR, position)) >= 0:
            if not is_at_end and found + _LOOK_AHEAD > len(data):
                undecided = found - _BEFORE
                break
            rest = _REST_OF_LINE.match(data, found + len(SEPARATOR))
            before = b"" if found == start and self._is_fresh else data[found - 1 : found]
            if rest is None or not _is_separator(before, rest[1]):
                if not self._num_missed:
                    self._first_missed = self._line + data.count(b"\n", start, found)
                self._num_missed += 1
                position = found + len(SEPARATOR)
                continue
            self._newline = rest[1] or (b"\r" if before == b"\r" else b"\r\n")
            yield self._take(_without_newline(data[start:found], self._newline))
            self._line += data.count(b"\n", start, rest.end())
            self._is_fresh = True
            start = position = rest.end()
        else:
            undecided = max(len(data) - len(SEPARATOR) + 1, position) - _BEFORE
        if not is_at_end and undecided > start:
            self._document.append(memoryview(data)[start:undecided], line=self._line)
            self._line += data.count(b"\n", start, undecided)
            self._is_fresh = False
            start = undecided
        self._data = data[start:]

    def _take(self, text: bytes) -> bytes:
        self._document.append(text, line=self._line)
        return self._document.take()

    def _warn_of_missed(self) -> None:
        if not self._num_missed:
            return
        others = f" and {self._num_missed - 1:,} more" if self._num_missed > 1 else ""
        where = f"{self._name}: line {self._first_missed}{others}"
        what = f"{SEPARATOR.decode()} beside other text does not divide documents and is taken as text"
        _LOGGER.warning("%s: %s; put it on a line of its own", where, what)


def _is_separator(before: bytes, newline: bytes) -> bool:
    """Whether a separator between these has a line of its own; nothing stands for the start and the end."""
    if before == b"\r":
        return newline in (b"\r", b"")
    return before == b"" or (before == b"\n" and newline != b"\r")


def _without_newline(text: bytes, newline: bytes) -> bytes:
    r"""Take off the newline before a separator, or the end, where separators end in `newline`."""
    if newline == b"\r":
        return text.removesuffix(b"\r")
    if newline == b"\r\n" and text.endswith(b"\r\n"):
        return text[:-2]
    return text.removesuffix(b"\n")
