"""GGUF, the one-file form of llama.cpp: a header of named values, then tensors, mostly quantised.

The header is read here, every length against what the file holds, since the package `gguf` trusts them and can loop
without end on a file that is cut off. That package turns quantised blocks into numbers.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from blt.errors import MissingExtraError, ModelFolderError
from blt.shapes import Float, Tensor

VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """Where a tensor lies."""

    kind: int
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, kw_only=True, eq=False)
class GGUFFile:
    """A GGUF file whose header has been read; tensors are dequantised when they are asked for."""

    path: Path
    fields: dict[str, Any]
    """Numbers, strings, and lists of them, by name."""
    _stored: dict[str, _Stored]
    _data: npt.NDArray[np.uint8]

    @property
    def names(self) -> list[str]:
        """Name the tensors."""
        return list(self._stored)

    def tensor(self, name: str) -> Float[Tensor, "*shape"]:
        """Return a tensor as float32.

        Raises:
            ModelFolderError: it reaches past the end of the file, or is quantised in a way that is not known.
        """
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

        stored = self._stored[name]
        try:
            kind = GGMLQuantizationType(stored.kind)
            numbers_per_block, bytes_per_block = GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError):
            raise ModelFolderError(f"{self.path}: {name} has the unknown type {stored.kind}") from None
        *rows, width = stored.shape
        if width % numbers_per_block:
            raise ModelFolderError(f"{self.path}: {name} has rows of {width}, no multiple of {numbers_per_block}")
        row_bytes = width // numbers_per_block * bytes_per_block
        stop = stored.offset + math.prod(rows) * row_bytes
        if stop > len(self._data):
            raise _cut_off(self.path)
        blocks = self._data[stored.offset : stop].reshape(*rows, row_bytes)
        try:
            numbers = quants.dequantize(np.ascontiguousarray(blocks), kind)
        except NotImplementedError:
            raise ModelFolderError(f"{self.path}: {name} is stored as {kind.name}, which cannot be read") from None
        return torch.from_numpy(np.array(numbers, np.float32)).reshape(stored.shape)


def read_gguf(path: Path) -> GGUFFile:
    """Read the header of a GGUF file.

    Raises:
        MissingExtraError: the package `gguf` is not installed.
        ModelFolderError: missing, cut off, or no GGUF of a version that is known.
    """
    try:
        import gguf  # noqa: F401 (to say so before anything is read)
    except ImportError:
        raise MissingExtraError("gguf", extra="byteify", purpose=f"reading {path}") from None
    try:
        data: npt.NDArray[np.uint8] = np.memmap(path, mode="r")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is empty"
        raise ModelFolderError(f"{path}: cannot be read ({reason})") from None
    cursor = _Cursor(data, path)
    if cursor.take(4) != b"GGUF":
        raise ModelFolderError(f"{path}: no GGUF file")
    version = cursor.number("I")
    if version not in VERSIONS:
        raise ModelFolderError(f"{path}: GGUF of version {version}; versions 2 and 3 can be read")
    num_tensors, num_fields = cursor.number("Q"), cursor.number("Q")
    fields: dict[str, Any] = {}
    for _ in range(num_fields):
        name = cursor.string()
        _refuse_twice(name, fields, path)
        fields[name] = cursor.value(cursor.number("I"))
    infos: dict[str, _Stored] = {}
    for _ in range(num_tensors):
        name = cursor.string()
        _refuse_twice(name, infos, path)
        infos[name] = cursor.tensor_info()
    start = _aligned(cursor.position, fields.get("general.alignment", DEFAULT_ALIGNMENT), path)
    stored = {
        name: _Stored(kind=info.kind, shape=info.shape, offset=start + info.offset) for name, info in infos.items()
    }
    return GGUFFile(path=path, fields=fields, _stored=stored, _data=data)


class _Cursor:
    """Reads a header from its start, never past the end."""

    def __init__(self, data: npt.NDArray[np.uint8], path: Path) -> None:
        self._data = data
        self._path = path
        self.position = 0

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        if count > len(self._data) - self.position:
            raise _cut_off(self._path)
        self.position += count
        return self._data[self.position - count : self.position].tobytes()

    def number(self, code: str) -> Any:
        """Return a number; `code` as in `struct`."""
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def string(self) -> str:
        """Return a string."""
        return self.take(self.number("Q")).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        """Return a number, a string, or a list of either."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            kind, count = self.number("I"), self.number("Q")
            if kind == _STRING:
                return [self.string() for _ in range(count)]
            code = self._code(kind)
            return list(struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(f"<{code}"))))
        return self.number(self._code(kind))

    def tensor_info(self) -> _Stored:
        """Return shape (outermost first, as in PyTorch), type, and the offset after the header."""
        num_dimensions = self.number("I")
        if not 1 <= num_dimensions <= MAX_DIMENSIONS:
            raise ModelFolderError(f"{self._path}: a tensor of {num_dimensions} dimensions; expected 1 to 4")
        shape = tuple(self.number("Q") for _ in range(num_dimensions))[::-1]
        return _Stored(shape=shape, kind=self.number("I"), offset=self.number("Q"))

    def _code(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise ModelFolderError(f"{self._path}: a value of the unknown type {kind}")
        return _SCALARS[kind]


def _aligned(position: int, alignment: Any, path: Path) -> int:
    if not isinstance(alignment, int) or alignment < 1:
        raise ModelFolderError(f"{path}: general.alignment: {alignment!r}; at least 1")
    return -(-position // alignment) * alignment


def _refuse_twice(name: str, known: dict[str, Any], path: Path) -> None:
    if name in known:
        raise ModelFolderError(f"{path}: holds {name!r} twice")


def _cut_off(path: Path) -> ModelFolderError:
    return ModelFolderError(f"{path}: is cut off; copy or download it again")
