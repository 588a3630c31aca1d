"""Documents out of files: text with separators, JSONL, Parquet, each also compressed."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from blt.codec import to_bytes
from blt.data.parquet import read_parquet
from blt.data.streams import COMPRESSIONS, open_stream
from blt.errors import DataError

Format = Literal["auto", "text", "jsonl", "parquet"]
"""What a file holds; `auto` goes by its name, and takes standard input for text."""

SEPARATOR = b"<|endoftext|>"
"""The line that divides the documents of a text."""

_FORMAT_OF_ENDING: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}


def read_documents(
    path: str | Path,
    *,
    text_field: str = "text",
    format: Format = "auto",
    name: str | None = None,
    on_read: Callable[[int], None] | None = None,
) -> Iterator[bytes]:
    r"""Give the documents of a file one at a time, as raw bytes; empty ones are dropped.

    Text is divided by lines that are exactly `<|endoftext|>`; the newline before such a line and its own belong to the
    separator (CRLF where that line ends so), and everything else to the documents, whether it is valid UTF-8 or not.
    A text without separators is one document.

    Args:
        path: a file, or `-` for standard input. Names that end in `.gz`, `.xz` or `.zst` are decompressed.
        text_field: field of a JSON object, or column of a Parquet file, that holds the document.
        format: what the file holds, if its name does not tell.
        name: what to call the file in messages; its path by default.
        on_read: told how many bytes of the file itself were read, whenever some are.

    Raises:
        DataError: the file is missing, empty, damaged, of another kind, or a line or row holds no document.
        MissingExtraError: the file needs a package that is not installed.
    """
    name = name or ("standard input" if str(path) == "-" else str(path))
    format = format_of(path) if format == "auto" else format
    num_documents = 0
    with open_stream(path, name=name, holds="Parquet" if format == "parquet" else "text", on_read=on_read) as stream:
        for document in _divide(stream, name=name, text_field=text_field, format=format):
            if document:
                num_documents += 1
                yield document
    if not num_documents:
        raise DataError(f"{name}: has no documents; expected at least one that is not empty")


def format_of(path: str | Path) -> Format:
    """Tell what a file holds by its name, the ending of a compression taken off."""
    path = Path(path)
    if path.suffix in COMPRESSIONS:
        path = path.with_suffix("")
    return _FORMAT_OF_ENDING.get(path.suffix, "text")


def _divide(stream: io.BufferedIOBase, *, name: str, text_field: str, format: Format) -> Iterator[bytes]:
    if format == "parquet":
        return read_parquet(stream, name=name, text_field=text_field)
    if format == "jsonl":
        return _divide_jsonl(stream, name=name, text_field=text_field)
    return _divide_text(stream)


def _divide_text(stream: io.BufferedIOBase) -> Iterator[bytes]:
    lines: list[bytes] = []
    has_separators = False
    for line in stream:
        if line.startswith(SEPARATOR) and line[len(SEPARATOR) :] in (b"\n", b"\r\n", b""):
            if lines:
                lines[-1] = _without_newline(lines[-1], may_be_crlf=not line.endswith(b">\n"))
            yield b"".join(lines)
            lines.clear()
            has_separators = True
        else:
            lines.append(line)
    if not (has_separators and lines in ([b"\n"], [b"\r\n"])):  # a blank line after the last one is no document
        yield b"".join(lines)


def _without_newline(line: bytes, *, may_be_crlf: bool) -> bytes:
    if may_be_crlf and line.endswith(b"\r\n"):
        return line[:-2]
    return line.removesuffix(b"\n")


def _divide_jsonl(stream: io.BufferedIOBase, *, name: str, text_field: str) -> Iterator[bytes]:
    expected = f"expected one object with a {text_field!r} field per line"
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}: line {number} is not JSON ({error}); {expected}") from None
        if not isinstance(row, dict):
            raise DataError(f"{name}: line {number} is a JSON {_kind(row)}, not an object; {expected}")
        if text_field not in row:
            fields = ", ".join(map(repr, row)) or "none"
            raise DataError(
                f"{name}: line {number} has no field {text_field!r}, only {fields}; choose with --text-field"
            )
        if not isinstance(row[text_field], str):
            raise DataError(f"{name}: line {number} has a {_kind(row[text_field])} as {text_field!r}, not a string")
        yield to_bytes(row[text_field])


def _kind(value: Any) -> str:
    kinds = {type(None): "null", bool: "boolean", list: "list", dict: "object", str: "string"}
    return kinds.get(type(value), "number")
