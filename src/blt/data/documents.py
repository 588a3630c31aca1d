"""Documents out of files: text with separators, JSONL, Parquet, each also compressed."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from blt.data.document_limit import MAX_DOCUMENT_BYTES
from blt.data.jsonl import read_jsonl
from blt.data.kinds import EmptyInputError, Format, check_is_text, format_of
from blt.data.parquet import read_parquet
from blt.data.row_faults import RowFaults
from blt.data.streams import open_stream
from blt.data.text import divide_text
from blt.errors import DataError


def read_documents(
    path: str | Path,
    *,
    text_field: str | None = None,
    format: Format = "auto",
    skip_bad: bool = False,
    max_document_bytes: int = MAX_DOCUMENT_BYTES,
    name: str | None = None,
    copy: BinaryIO | None = None,
    on_read: Callable[[int], None] | None = None,
) -> Iterator[bytes]:
    r"""Return the documents of a file one at a time, as raw bytes; empty ones are dropped.

    Text is divided by lines that hold `<|endoftext|>` and nothing else but blanks after it; the newline before such a
    line and its own belong to the separator (CRLF where that line ends so; CR where both are CR), the newline at the
    end of a text that has separators is dropped too, and everything else belongs to the documents, whether it is valid
    UTF-8 or not. A text without separators is one document. A byte order mark at the start of a file is dropped.

    Args:
        path: a file, or `-` for standard input. Names that end in `.gz`, `.bz2`, `.xz` or `.zst` are decompressed.
        text_field: field of a JSON object, or column of a Parquet file, that holds the document; "text" if None.
        format: what the file holds, if its name does not tell.
        skip_bad: pass over lines and rows that hold no document; how many these are is logged, with the first few.
        max_document_bytes: a longer document, or line of JSONL, is refused.
        name: what to call the file in messages; its path by default.
        copy: an open file to read instead, where the input itself can be read only once.
        on_read: told how many bytes of the file itself were read, whenever some are.

    Raises:
        DataError: the file is missing, empty, damaged, of another kind, a line or row holds no document, or an option
            cannot apply to plain text.
        MissingExtraError: the file needs a package that is not installed.
    """
    name = name or ("standard input" if str(path) == "-" else str(path))
    is_given = format != "auto"
    format = format if is_given else format_of(path)
    if format == "text":
        check_options_of_text(name, text_field=text_field, skip_bad=skip_bad)
    faults = RowFaults(name, are_skipped=skip_bad)
    text_field = text_field or "text"
    holds = "Parquet" if format == "parquet" else "text"
    num_documents = 0
    with open_stream(path, name=name, holds=holds, is_given=is_given, copy=copy, on_read=on_read) as stream:
        if format == "text" and not is_given:
            check_is_text(stream.peek(), path, name, text_field=text_field)
        for document in _divide(stream, format, name, text_field, faults, max_document_bytes):
            if document:
                num_documents += 1
                yield document
    faults.report(num_documents)
    if not num_documents:
        raise EmptyInputError(f"{name}: has no documents; expected at least one that is not empty")


def check_options_of_text(name: str, *, text_field: str | None, skip_bad: bool) -> None:
    """Refuse options that only rows have a use for.

    Args:
        name: what is plain text.
        text_field: as given; None if it was not.
        skip_bad: as given.

    Raises:
        DataError: one of them was given.
    """
    for option, is_set in (("--text-field", text_field is not None), ("--skip-bad", skip_bad)):
        if is_set:
            what = f"is plain text, for which {option} means nothing"
            raise DataError(f"{name}: {what}; leave it out, or say what the file holds with --format")


def _divide(
    stream: io.BufferedReader,
    format: Format,
    name: str,
    text_field: str,
    faults: RowFaults,
    max_document_bytes: int,
) -> Iterator[bytes]:
    if format == "text":
        return divide_text(stream, name=name, max_document_bytes=max_document_bytes)
    read_rows = read_parquet if format == "parquet" else read_jsonl
    return read_rows(stream, name=name, text_field=text_field, faults=faults, max_document_bytes=max_document_bytes)
