"""The table of a split's shards: what each holds, 80 bytes per shard, so that opening a split reads no shard.

`train/shards.table` has one record per shard, in order: `num_bytes` and `num_documents` (int64, little-endian), then
`sha256` of `shard-NNNNN.bin` and `ends_sha256` of `shard-NNNNN.ends` (32 bytes each).
"""

import hashlib
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from blt.errors import DataError

ShardTable: TypeAlias = NDArray[Any]
"""One record per shard."""
RECORD = np.dtype([("num_bytes", "<i8"), ("num_documents", "<i8"), ("sha256", "u1", 32), ("ends_sha256", "u1", 32)])
"""A record of the table, 80 bytes."""
_MAX_TOTAL = 2**62
"""Bytes and documents of a split lie below this, so that positions in it fit into an int64."""


def shard_name(split: str, number: int) -> str:
    """Return where the text of a shard lies in its folder."""
    return f"{split}/shard-{number:05d}.bin"


def ends_name(split: str, number: int) -> str:
    """Return where the ends of a shard's documents lie in its folder."""
    return f"{split}/shard-{number:05d}.ends"


def table_name(split: str) -> str:
    """Return where the table of a split lies in its folder."""
    return f"{split}/shards.table"


def record(*, num_bytes: int, num_documents: int, sha256: str, ends_sha256: str) -> bytes:
    """Return the record of one shard.

    Args:
        num_bytes: of text.
        num_documents: in it.
        sha256: of the text, in hexadecimal.
        ends_sha256: of the ends, in hexadecimal.
    """
    made = np.zeros(1, RECORD)
    made["num_bytes"], made["num_documents"] = num_bytes, num_documents
    for name, digest in (("sha256", sha256), ("ends_sha256", ends_sha256)):
        made[name][0] = np.frombuffer(bytes.fromhex(digest), np.uint8)
    return made.tobytes()


def table_of(records: Iterable[bytes]) -> ShardTable:
    """Return the table that these records make."""
    return np.frombuffer(b"".join(records), RECORD)


def parse_table(content: bytes, *, entry: dict[str, Any], where: str) -> ShardTable:
    """Return the table in a file, once it is what the index says of it.

    Args:
        content: of the file.
        entry: the split's entry in `index.json`.
        where: names the file in messages.

    Raises:
        DataError: it is not.
    """
    if hashlib.sha256(content).hexdigest() != entry["table_sha256"] or len(content) % RECORD.itemsize:
        raise DataError(f"{where}: has changed, index.json says another sha256; prepare again with --overwrite")
    table = np.frombuffer(content, RECORD)
    for name in ("num_bytes", "num_documents"):
        numbers = table[name]
        # Summed as floating point too, which cannot wrap around.
        is_sound = bool((numbers > 0).all()) and float(numbers.sum(dtype=np.float64)) < _MAX_TOTAL
        if not (is_sound and len(table) == entry["num_shards"] and int(numbers.sum()) == entry[name]):
            raise DataError(f"{where}: does not fit index.json; prepare again with --overwrite")
    return table


def hex_of(digest: NDArray[np.uint8]) -> str:
    """Return a digest of the table in hexadecimal."""
    return digest.tobytes().hex()
