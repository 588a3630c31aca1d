"""Documents out of Parquet files, batch by batch."""

import io
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from blt.codec import to_bytes
from blt.errors import DataError, MissingExtraError

_ROWS_PER_BATCH = 1024


def read_parquet(stream: io.BufferedIOBase, *, name: str, text_field: str) -> Iterator[bytes]:
    """Give the documents of a Parquet file, empty ones too.

    Args:
        stream: the file; unpacked to the disk first if it is compressed, since Parquet is read from its end.
        name: what to call it in messages.
        text_field: the column that holds the documents, as strings or as bytes.

    Raises:
        DataError: the file is broken, has no such column, or a row that is not text.
        MissingExtraError: the package `pyarrow` is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", extra="data", purpose="reading Parquet files") from None
    with tempfile.TemporaryFile() as unpacked:
        if isinstance(stream, io.BufferedReader) and stream.seekable():
            file: IO[bytes] | io.BufferedIOBase = stream
        else:
            shutil.copyfileobj(stream, unpacked)
            file = unpacked
        try:
            yield from _read_rows(pyarrow.parquet.ParquetFile(file), name=name, text_field=text_field)
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"{name}: is no Parquet file or is damaged ({reason}); fetch or write it again") from None


def _read_rows(file: Any, *, name: str, text_field: str) -> Iterator[bytes]:
    columns = file.schema_arrow.names
    if text_field not in columns:
        raise DataError(f"{name}: has no column {text_field!r}, only {', '.join(columns)}; choose with --text-field")
    number = 0
    for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH, columns=[text_field]):
        for value in batch.column(0).to_pylist():
            number += 1
            if not isinstance(value, str | bytes):
                kind = "null" if value is None else type(value).__name__
                raise DataError(f"{name}: row {number} has a {kind} in column {text_field!r}, not a string")
            yield to_bytes(value)
