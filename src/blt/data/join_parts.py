"""Shards that were written apart → the shards that one process would have written of the same documents."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blt.checkpoint import sync, write_file
from blt.data.shard_folder import ShardFolder
from blt.data.shard_table import ends_name, record, shard_name, table_name, table_of

_CHUNK = 1 << 22


class Piece(NamedTuple):
    """Documents of one shard of a part that lie one after another."""

    part: int
    shard: int
    documents: range
    """Their numbers in that shard."""
    start: int
    """Where the first begins in its text."""
    stop: int
    """Where the last ends."""

    @property
    def num_bytes(self) -> int:
        """Bytes of text."""
        return self.stop - self.start


def cut(parts: Sequence[ShardFolder], *, shard_bytes: int) -> list[list[Piece]]:
    """Return what each shard of the whole is made of, by the rule of `ShardWriter`.

    Args:
        parts: in the order of their documents.
        shard_bytes: a shard is closed before it would grow larger; a longer document gets its own.
    """
    shards: list[list[Piece]] = []
    room = 0
    for number, part in enumerate(parts):
        for shard in range(len(part.table)):
            ends = np.asarray(part.whole_shard(shard).ends[:])
            first, start = 0, 0
            while first < len(ends):
                stop = int(ends.searchsorted(start + room, side="right"))
                if stop <= first:  # the next document does not fit
                    shards.append([])
                    room = shard_bytes
                    stop = max(int(ends.searchsorted(start + room, side="right")), first + 1)
                end = int(ends[stop - 1])
                shards[-1].append(Piece(number, shard, range(first, stop), start, end))
                room -= end - start
                first, start = stop, end
    return shards


def write_shard(
    folder: Path, split: str, number: int, *, pieces: Sequence[Piece], parts: Sequence[ShardFolder]
) -> bytes:
    """Write a shard of the whole, and wait until it is on the disk.

    Args:
        folder: the folder that holds the splits.
        split: name of the split.
        number: of the shard.
        pieces: what it is made of.
        parts: where that is.

    Returns:
        Its record in the table.
    """
    text_hash, ends_hash, written, documents = hashlib.sha256(), hashlib.sha256(), 0, 0
    paths = folder / shard_name(split, number), folder / ends_name(split, number)
    with paths[0].open("wb") as text_file, paths[1].open("wb") as ends_file:
        for piece in pieces:
            shard = parts[piece.part].whole_shard(piece.shard)
            for start in range(piece.start, piece.stop, _CHUNK):
                content = shard.text[start : min(start + _CHUNK, piece.stop)].tobytes()
                text_hash.update(content)
                text_file.write(content)
            ends = np.asarray(shard.ends[piece.documents.start : piece.documents.stop]) - piece.start + written
            ends_hash.update(ends.astype("<i8").tobytes())
            ends_file.write(ends.astype("<i8").tobytes())
            written, documents = written + piece.num_bytes, documents + len(piece.documents)
        for file in (text_file, ends_file):
            file.flush()
            os.fsync(file.fileno())
    return record(
        num_bytes=written,
        num_documents=documents,
        sha256=text_hash.hexdigest(),
        ends_sha256=ends_hash.hexdigest(),
    )


def write_table(folder: Path, split: str, records: Sequence[bytes]) -> dict[str, Any]:
    """Write the table of a split, and return its entry in the index but for the checksum of its documents."""
    table = table_of(records)
    write_file(folder / table_name(split), table.tobytes())
    sync(folder / split)
    return {
        "num_shards": len(table),
        "num_documents": int(table["num_documents"].sum()),
        "num_bytes": int(table["num_bytes"].sum()),
        "table_sha256": hashlib.sha256(table.tobytes()).hexdigest(),
    }
