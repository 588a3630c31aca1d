"""Documents out of JSONL: one object per line, of which one field is the document."""

import io
import json
from collections.abc import Iterator
from typing import Any

from blt.codec import to_bytes
from blt.data.document_limit import DocumentBuffer
from blt.data.kinds import BYTE_ORDER_MARK, warn_of_byte_order_mark
from blt.data.row_faults import RowFaults
from blt.data.streams import BUFFER_BYTES
from blt.errors import DataError

_NUM_FIELDS_SHOWN = 20


def read_jsonl(
    stream: io.BufferedReader, *, name: str, text_field: str, faults: RowFaults, max_document_bytes: int
) -> Iterator[bytes]:
    """Return the documents of JSONL, empty ones too.

    Args:
        stream: the lines; those that are blank are passed over.
        name: what to call it in messages.
        text_field: the field that holds the document.
        faults: told of every line that holds no document.
        max_document_bytes: a longer line is refused.

    Raises:
        DataError: a line is too long, or is bad where bad ones are not passed over.
    """
    for number, line in enumerate(_lines(stream, name=name, max_bytes=max_document_bytes), start=1):
        if number == 1 and line.startswith(BYTE_ORDER_MARK):
            warn_of_byte_order_mark(name)
            line = line[len(BYTE_ORDER_MARK) :]
        if line.isspace() or not line:
            continue
        try:
            yield to_bytes(_document(line, text_field))
        except _LineError as fault:
            faults.add(f"line {number} {fault}")
        except MemoryError:
            what = f"line {number}, of {len(line):,} bytes, does not fit into memory as JSON"
            raise DataError(f"{name}: {what}; divide it into smaller documents") from None


class _Fields(list[tuple[str, Any]]):
    """A JSON object as its fields, with those that are there twice; a list is a plain `list`."""


class _LineError(Exception):
    """What is wrong with a line."""


# A field that is there twice has no one value, so objects stay lists of pairs. Integers become floats, because nothing
# reads them and Python takes time in the square of their digits, or refuses them.
_DECODER = json.JSONDecoder(object_pairs_hook=_Fields, parse_int=float)


def _document(line: bytes, text_field: str) -> str:
    expected = f"expected one object with a {text_field!r} field per line"
    try:
        row = _DECODER.decode(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise _LineError(f"is not JSON ({error}); {expected}") from None
    if not isinstance(row, _Fields):
        raise _LineError(f"is a JSON {_kind(row)}, not an object; {expected}")
    values = [value for name, value in row if name == text_field]
    if not values:
        names = [repr(name) for name, _ in row]
        more = [f"{len(names) - _NUM_FIELDS_SHOWN:,} more"] if len(names) > _NUM_FIELDS_SHOWN else []
        fields = ", ".join(names[:_NUM_FIELDS_SHOWN] + more) or "none"
        raise _LineError(f"has no field {text_field!r}, only {fields}; choose with --text-field")
    if len(values) > 1:
        raise _LineError(f"has the field {text_field!r} {len(values)} times; {expected}")
    if not isinstance(values[0], str):
        raise _LineError(f"has a {_kind(values[0])} as {text_field!r}, not a string")
    return values[0]


def _lines(stream: io.BufferedReader, *, name: str, max_bytes: int) -> Iterator[bytes]:
    """Yield lines without holding a long one twice, as `readline` would."""
    buffer = DocumentBuffer(name, max_bytes=max_bytes, unit="line")
    number = 0
    while piece := stream.readline(BUFFER_BYTES):
        number += 1
        if piece.endswith(b"\n") and len(piece) <= max_bytes:
            yield piece
            continue
        buffer.append(piece, line=number)
        while not piece.endswith(b"\n") and (piece := stream.readline(BUFFER_BYTES)):
            buffer.append(piece, line=number)
        yield buffer.take()


def _kind(value: object) -> str:
    kinds = {type(None): "null", bool: "boolean", list: "list", _Fields: "object", str: "string"}
    return kinds.get(type(value), "number")
