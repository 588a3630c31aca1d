"""Documents out of Parquet files, batch by batch."""

import io
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from blt.codec import to_bytes
from blt.data.row_faults import RowFaults, check_value
from blt.errors import DataError, MissingExtraError

_ROWS_PER_BATCH = 128  # a page can say in a few bytes that all its rows hold the same long text


def read_parquet(
    stream: io.BufferedReader, *, name: str, text_field: str, faults: RowFaults, max_document_bytes: int
) -> Iterator[bytes]:
    """Return the documents of a Parquet file, empty ones too.

    Args:
        stream: the file; unpacked to the disk first if it is compressed, since Parquet is read from its end.
        name: what to call it in messages.
        text_field: the column that holds the documents, as strings or as bytes.
        faults: told of every row that holds no document.
        max_document_bytes: a longer document is refused.

    Raises:
        DataError: the file is broken, has no such column, a row is too long, or is bad where bad ones are refused.
        MissingExtraError: the package `pyarrow` is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", extra="data", purpose="reading Parquet files") from None
    with tempfile.TemporaryFile() as unpacked:
        file: IO[bytes] | io.BufferedReader = stream
        if not stream.seekable():
            shutil.copyfileobj(stream, unpacked)
            file = unpacked
        try:
            for number, value in enumerate(_values(pyarrow, file, name=name, text_field=text_field), start=1):
                text = check_value(value, f"row {number}", text_field, faults)
                if text is None:
                    continue
                document = to_bytes(text)
                if len(document) > max_document_bytes:
                    limit = f"has more than {max_document_bytes:,} bytes"
                    raise DataError(f"{name}: row {number} {limit}; divide it, or allow more with --max-document-mb")
                yield document
        except MemoryError:  # pyarrow's too
            raise DataError(f"{name}: does not fit into memory; write it with smaller row groups") from None
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"{name}: is no Parquet file or is damaged ({reason}); fetch or write it again") from None


def _values(pyarrow: Any, file: Any, *, name: str, text_field: str) -> Iterator[Any]:
    """Yield the values of a column; strings as bytes, since files can hold strings that are not UTF-8."""
    parquet = pyarrow.parquet.ParquetFile(file)
    columns = parquet.schema_arrow.names
    if text_field not in columns:
        raise DataError(f"{name}: has no column {text_field!r}, only {', '.join(columns)}; choose with --text-field")
    if columns.count(text_field) > 1:
        raise DataError(f"{name}: has {columns.count(text_field)} columns {text_field!r}; expected one")
    for batch in parquet.iter_batches(batch_size=_ROWS_PER_BATCH, columns=[text_field]):
        column = batch.column(0)
        if pyarrow.types.is_string(column.type):
            column = column.cast(pyarrow.binary())
        elif pyarrow.types.is_large_string(column.type):
            column = column.cast(pyarrow.large_binary())
        for number in range(len(column)):
            yield column[number].as_py()
