"""What an input is: by the ending of its name, and by its first bytes."""

import logging
import re
from pathlib import Path
from typing import Literal

from blt.errors import DataError

Format = Literal["auto", "text", "jsonl", "parquet"]
"""What a file holds; `auto` goes by its name, and takes standard input for text."""

COMPRESSIONS = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".bz2": "bzip2",
    ".xz": "xz",
    ".lzma": "xz",
    ".zst": "Zstandard",
    ".zstd": "Zstandard",
}
"""Endings of names that are taken off, in any case, and what they stand for."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some editors put before UTF-8; no part of the text."""

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".jsonlines": "jsonl",
    ".jl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".parq": "parquet",
}
_TEXTS = {".txt", ".text"}
_NOT_READ = {
    *(".7z", ".arrow", ".br", ".feather", ".lz", ".lz4", ".npy", ".npz", ".pdf", ".pickle", ".pkl", ".rar", ".snappy"),
    *(".sz", ".tar", ".tbz", ".tbz2", ".tgz", ".txz", ".tzst", ".z", ".zip"),
}
_MAGIC = {
    "gzip": rb"\x1f\x8b\x08",
    "xz": rb"\xfd7zXZ\x00",
    "Zstandard": rb"\x28\xb5\x2f\xfd",
    "Parquet": rb"PAR1",
    "bzip2": rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)",
    "zip": rb"PK(\x03\x04|\x05\x06)",
    "7z": rb"7z\xbc\xaf\x27\x1c",
    "lz4": rb"\x04\x22\x4d\x18",
    "rar": rb"Rar!\x1a\x07",
    "snappy": rb"\xff\x06\x00\x00sNaPpY",
    "tar": rb".{257}ustar",
    "PDF": rb"%PDF-",
    "PNG": rb"\x89PNG\r\n",
    "NumPy": rb"\x93NUMPY",
    "Arrow": rb"ARROW1\x00\x00",
    "SQLite": rb"SQLite format 3\x00",
    "HDF5": rb"\x89HDF\r\n\x1a\n",
    "ELF": rb"\x7fELF[\x01\x02]",
    "a Git LFS pointer": rb"version https://git-lfs\.github\.com/spec/",
}
_WAYS_OUT = {
    "gzip": "end its name in .gz",
    "bzip2": "end its name in .bz2",
    "xz": "end its name in .xz",
    "Zstandard": "end its name in .zst",
    "Parquet": "end its name in .parquet",
    "a Git LFS pointer": "fetch the file itself with `git lfs pull`",
}
_PACKED = {"gzip", "bzip2", "xz", "Zstandard"}
_LOGGER = logging.getLogger("blt.data")


def compression_of(path: str | Path) -> str | None:
    """Return what a file is compressed by, by its name; None if it is not."""
    return COMPRESSIONS.get(Path(path).suffix.lower())


def format_of(path: str | Path) -> Format:
    """Return what a file holds by its name, the ending of a compression taken off."""
    return _FORMATS.get(_inner_ending(path), "text")


def is_document_file(path: str | Path) -> bool:
    """Whether a file's name is that of a known format; in a folder, only such files are read."""
    return _inner_ending(path) in _TEXTS or _inner_ending(path) in _FORMATS


def check_first_bytes(head: bytes, name: str, *, expected: str, is_given: bool = False) -> None:
    """Refuse a stream whose first bytes say that it is something else than was expected.

    Args:
        head: its first bytes; none if it is empty.
        name: what to call it in messages.
        expected: a compression, "text" or "Parquet".
        is_given: whether the user said so; then anything that is not compressed passes for text.

    Raises:
        DataError: it is empty or something else.
    """
    if not head:
        raise EmptyInputError(f"{name}: is empty; expected documents")
    found = next((kind for kind, magic in _MAGIC.items() if re.match(magic, head, re.DOTALL)), None)
    if found in (None, expected) or (is_given and expected == "text" and found not in _PACKED):
        return
    way_out = _WAYS_OUT.get(str(found), "extract its text first")
    if expected == "text" and found not in _PACKED:
        way_out += ", or take it as it is with --format text"
    raise DataError(f"{name}: is {found} by its first bytes, where {expected} was expected; {way_out}")


def check_is_text(head: bytes, path: str | Path, name: str, *, text_field: str) -> None:
    """Refuse what is taken for text by its name alone and is plainly none; warn of UTF-16.

    Args:
        head: its first bytes, decompressed.
        path: its path, for the ending.
        name: what to call it in messages.
        text_field: field that holds the document, if it is JSONL after all.

    Raises:
        DataError: it is JSONL, or its name ends as those of binary files do.
    """
    ending = _inner_ending(path)
    if ending in _NOT_READ:
        raise DataError(f"{name}: {ending} files are not read; unpack it first, or take it as text with --format text")
    line, newline, _ = head.removeprefix(BYTE_ORDER_MARK).lstrip().partition(b"\n")
    is_object = re.match(rb'\{\s*"', line) and (not newline or line.rstrip().endswith(b"}"))
    if is_object and re.search(rb'"' + re.escape(text_field.encode()) + rb'"\s*:\s*"', line):
        what = f"its first line is a JSON object with a field {text_field!r}, but its name does not say JSONL"
        raise DataError(f"{name}: {what}; choose --format jsonl, or --format text to take it as it is")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        _LOGGER.warning("%s: begins as UTF-16 does and is taken as raw bytes; convert it to UTF-8 with iconv", name)


def warn_of_byte_order_mark(name: str) -> None:
    """Log that an input begins with a byte order mark, which is dropped."""
    _LOGGER.warning("%s: begins with a UTF-8 byte order mark, which is dropped", name)


class EmptyInputError(DataError):
    """An input without any document."""


def _inner_ending(path: str | Path) -> str:
    path = Path(path)
    if compression_of(path):
        path = path.with_suffix("")
    return path.suffix.lower()
