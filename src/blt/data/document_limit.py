"""A limit on the length of one document, since one is held in memory at a time."""

import io
from typing import Literal

from blt.errors import DataError

MAX_DOCUMENT_BYTES = 1_024_000_000
"""The limit unless another is given."""


class DocumentBuffer:
    """A document that grows piece by piece, and is handed over without a copy."""

    def __init__(self, name: str, *, max_bytes: int, unit: Literal["document", "line"] = "document") -> None:
        """Begin with an empty one.

        Args:
            name: what to call the input in messages.
            max_bytes: the limit.
            unit: what is collected, in messages.
        """
        self._name = name
        self._max_bytes = max_bytes
        self._unit = unit
        self._number = 1
        self._line = 1
        self._pieces = io.BytesIO()

    def append(self, piece: bytes | memoryview, *, line: int) -> None:
        """Add what comes next.

        Args:
            piece: some bytes.
            line: the line of the input in which they begin.

        Raises:
            DataError: the document is longer than the limit, or than the memory.
        """
        size = self._pieces.tell()
        if not size:
            self._line = line
        if size + len(piece) > self._max_bytes:
            self._refuse(f"has more than {self._max_bytes:,} bytes")
        try:
            self._pieces.write(piece)
        except MemoryError:
            self._pieces = io.BytesIO()
            self._refuse(f"does not fit into memory ({size:,} bytes of it do)")

    def take(self) -> bytes:
        """Return the document, and begin the next."""
        document = self._pieces.getvalue()
        self._pieces = io.BytesIO()
        self._number += 1
        return document

    def _refuse(self, fault: str) -> None:
        which = f"document {self._number}, which begins on line {self._line},"
        if self._unit == "line":
            which = f"line {self._line}"
        raise DataError(f"{self._name}: {which} {fault}; divide it, or allow more with --max-document-mb")
