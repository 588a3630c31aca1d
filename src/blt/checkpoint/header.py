"""The header of a safetensors file, checked before anything is believed.

A file is: 8 bytes, the length of the header; the header, JSON of every tensor's dtype, shape and place; the numbers.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from blt.checkpoint.reading import LFS_NOTE, LFS_POINTER, open_plain
from blt.errors import BLTError, ModelFolderError

MAX_HEADER_BYTES = 16 * 2**20
"""The largest header that is read; it has about a hundred bytes per tensor."""
MAX_NAME_LENGTH = 512
MAX_DIMENSIONS = 8
BYTES_OF = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}
"""Bytes of one number, by dtype."""


@dataclass(frozen=True, kw_only=True)
class TensorHeader:
    """The entry of one tensor in a header."""

    dtype: str
    """As safetensors names it."""
    shape: tuple[int, ...]
    """Numbers in each dimension."""
    begin: int
    """First byte, counted from the end of the header."""
    end: int
    """The byte after its last."""


def read_header(path: Path, *, error: type[BLTError] = ModelFolderError) -> dict[str, TensorHeader]:
    """Return the entries of a safetensors file's header, by tensor.

    Raises:
        ModelFolderError: (or the given class) truncated, or anything that a whole file does not say.
    """
    with open_plain(path, error=error) as file:
        try:
            return _parse(file)
        except OSError as reason:
            raise error(f"{path}: cannot be read ({reason.strerror})") from None
        except _LFSPointerError:
            raise error(f"{path}: {LFS_NOTE}") from None
        except _HeaderError as reason:
            raise error(f"{path}: not a whole safetensors file ({reason}); copy or download it again") from None


class _HeaderError(Exception):
    """What is wrong with a header."""


class _LFSPointerError(Exception):
    """The file is a pointer of Git LFS."""


def _parse(file: BinaryIO) -> dict[str, TensorHeader]:
    # Every number in the file is untrusted. Each is compared with the file's real size, or with a fixed limit, before
    # anything is read or allocated by it: a header of eight bytes can claim 2^64 more, and JSON can nest without end.
    size = os.fstat(file.fileno()).st_size
    start = file.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        raise _LFSPointerError
    file.seek(8)
    length = int.from_bytes(start[:8], "little")
    _require(size >= 8, f"{size} bytes, fewer than 8")
    _require(length <= size - 8, f"its header claims {length:,} bytes, the file has {size:,}")
    _require(length <= MAX_HEADER_BYTES, f"a header of {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read")
    written = file.read(length)
    try:
        values = json.loads(written.decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as reason:
        raise _HeaderError(f"its header is not JSON: {reason}") from None
    _require(isinstance(values, dict), "its header is no table")
    headers = {name: _tensor(name, entry) for name, entry in values.items() if name != "__metadata__"}
    _check_places(headers, num_bytes=size - 8 - length)
    return headers


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    _require(len(values) == len(pairs), "a key of its header stands twice")
    return values


def _tensor(name: str, entry: Any) -> TensorHeader:
    """Validate one entry on its own."""
    _require(len(name) <= MAX_NAME_LENGTH and name.isprintable(), f"a tensor is named {name[:40]!r}")
    _require(isinstance(entry, dict), f"{name}: no table")
    dtype, shape, places = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    _require(isinstance(dtype, str) and dtype in BYTES_OF, f"{name}: unknown dtype {dtype!r}")
    _require(_are_counts(shape) and len(shape) <= MAX_DIMENSIONS, f"{name}: no shape, {shape!r}")
    _require(_are_counts(places) and len(places) == 2, f"{name}: no place, {places!r}")
    _require(math.prod(max(1, count) for count in shape) < 2**60, f"{name}: shape {shape} is beyond counting")
    wanted, held = math.prod(shape) * BYTES_OF[dtype], places[1] - places[0]
    _require(wanted == held, f"{name}: shape {shape} of {dtype} is {wanted:,} bytes, its place has {held:,}")
    return TensorHeader(dtype=dtype, shape=tuple(shape), begin=places[0], end=places[1])


def _check_places(headers: dict[str, TensorHeader], *, num_bytes: int) -> None:
    """Require that the tensors lie one after another and fill the file."""
    # Sorted by offset, every tensor must begin where the one before ends, and the last must end with the file. That
    # excludes overlaps, gaps and truncation at once.
    reached = 0
    for name, header in sorted(headers.items(), key=lambda pair: (pair[1].begin, pair[1].end)):
        _require(header.begin == reached, f"{name} starts at {header.begin:,}, the tensor before ends at {reached:,}")
        reached = header.end
    _require(reached == num_bytes, f"its tensors are {reached:,} bytes, the file has {num_bytes:,}")


def _are_counts(values: Any) -> bool:
    """Whether that is a list of whole numbers from 0 to what 64 bits can count."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _require(condition: bool, flaw: str) -> None:
    if not condition:
        raise _HeaderError(flaw)
