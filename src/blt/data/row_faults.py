"""Rows of JSONL, Parquet and data sets that hold no document: refused, or passed over and counted."""

import logging

from blt.errors import DataError

_NUM_SHOWN = 3
_LOGGER = logging.getLogger("blt.data")


class RowFaults:
    """What is done about the bad rows of one input."""

    def __init__(self, name: str, *, are_skipped: bool) -> None:
        """Begin with none.

        Args:
            name: what to call the input in messages.
            are_skipped: whether bad rows are passed over.
        """
        self._name = name
        self._are_skipped = are_skipped
        self._count = 0

    def add(self, fault: str) -> None:
        """Refuse a bad row, or count it and show the first few.

        Args:
            fault: which row it is, what is wrong with it and, perhaps, the way out.

        Raises:
            DataError: bad rows are not passed over.
        """
        if not self._are_skipped:
            raise DataError(f"{self._name}: {fault}; or pass over bad rows with --skip-bad")
        self._count += 1
        if self._count <= _NUM_SHOWN:
            _LOGGER.warning("%s: %s; passed over", self._name, DataError(fault))

    def report(self, num_documents: int) -> None:
        """Log how many rows were skipped.

        Args:
            num_documents: how many were not.
        """
        if self._count > _NUM_SHOWN:
            counts = f"{self._count:,} bad rows in all were passed over, {num_documents:,} documents were read"
            _LOGGER.warning("%s: %s", self._name, counts)


def check_value(value: object, where: str, text_field: str, faults: RowFaults) -> str | bytes | None:
    """Return a row's document, or None if it has none.

    Args:
        value: what the row holds.
        where: which row it is.
        text_field: the column that it comes from.
        faults: told of what is no document.
    """
    if isinstance(value, str | bytes):
        return value
    kind = "null" if value is None else type(value).__name__
    faults.add(f"{where} has a {kind} in column {text_field!r}, not a string")
    return None
