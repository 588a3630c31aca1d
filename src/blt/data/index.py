"""`index.json`: what a prepared folder holds."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blt.data.shard_table import ShardTable, parse_table, record, shard_name, table_name, table_of
from blt.errors import DataError

FORMAT = "blt-shards"
VERSION = 2
READABLE_VERSIONS = (1, 2)
"""Version 1 lists its shards in `index.json` itself, version 2 in a table beside them (`shard_table`)."""
SPLITS = ("train", "validation")


def read_index(folder: Path) -> dict[str, Any]:
    """Read and check the index of a prepared folder.

    Returns:
        What the file says; of version 1 too each split has its `num_shards`.

    Raises:
        DataError: the folder is missing, was not written by `blt prepare`, or by a newer one.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder}: {what}; expected a folder that `blt prepare` wrote")
    path = folder / "index.json"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{folder}: has no index.json; expected a folder that `blt prepare` wrote") from None
    return parse_index(content, where=str(path))


def parse_index(content: bytes, *, where: str) -> dict[str, Any]:
    """Return what an index says, once it is one.

    Args:
        content: of the file.
        where: names the file in messages.

    Raises:
        DataError: it was not written by `blt prepare`, or by a newer one.
    """
    try:
        index = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not JSON ({error}); prepare again") from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise DataError(f"{where}: is no index of {FORMAT}; expected a folder that `blt prepare` wrote")
    if index.get("version") not in READABLE_VERSIONS:
        raise DataError(f"{where}: has version {index.get('version')!r}, this blt reads up to {VERSION}; prepare again")
    try:
        for split, entry in index["splits"].items():
            _check_entry(split, entry, version=index["version"])
            entry.setdefault("num_shards", len(entry.get("shards", ())))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: is damaged ({type(error).__name__}: {error}); prepare again") from None
    return index


def entry_of(index: dict[str, Any], split: str, *, where: str) -> dict[str, Any]:
    """Return what an index says of a split that has documents.

    Args:
        index: as `read_index` gives it.
        split: `train` or `validation`.
        where: names the folder in messages.

    Raises:
        DataError: there is no such split, or no document in it.
    """
    splits = index["splits"]
    if split not in splits:
        raise DataError(f"{where}: has no split {split!r}; it has {', '.join(splits)}")
    if not splits[split]["num_documents"]:
        raise DataError(f"{where}: the split {split!r} has no documents; choose another --validation")
    return dict(splits[split])


def read_table(folder: Path, split: str, entry: dict[str, Any]) -> ShardTable:
    """Return the table of a split's shards.

    Args:
        folder: the prepared folder.
        split: its name.
        entry: what `read_index` says of it.

    Raises:
        DataError: the table is missing or is not what the index says.
    """
    path = folder / table_name(split)
    try:
        return table_of_split(lambda name: (folder / name).read_bytes(), split, entry, where=str(folder))
    except FileNotFoundError:
        raise DataError(f"{path}: missing, though index.json needs it; prepare again with --overwrite") from None


def table_of_split(read: Callable[[str], bytes], split: str, entry: dict[str, Any], *, where: str) -> ShardTable:
    """Return the table of a split's shards, wherever the folder lies.

    Args:
        read: returns a file of the folder by its name.
        split: its name.
        entry: what `read_index` says of it.
        where: names the folder in messages.

    Raises:
        DataError: the table is not what the index says.
    """
    if "table_sha256" not in entry:
        keys = ("num_bytes", "num_documents", "sha256", "ends_sha256")
        return table_of(record(**{key: shard[key] for key in keys}) for shard in entry["shards"])
    return parse_table(read(table_name(split)), entry=entry, where=f"{where}/{table_name(split)}")


def _check_entry(split: str, entry: dict[str, Any], *, version: int) -> None:
    """Refuse a split whose fields are not what `Shards.open` reads.

    Raises:
        TypeError: a field is of another kind.
        KeyError: a field is missing.
    """
    numbers, checksums = [entry["num_documents"], entry["num_bytes"]], [entry["checksum"]]
    if version == 1:
        for number, shard in enumerate(entry["shards"]):
            numbers += [shard["num_documents"], shard["num_bytes"]]
            checksums += [shard["sha256"], shard["ends_sha256"]]
            if shard["file"] != (expected := shard_name(split, number)):
                raise TypeError(f"its shard is {shard['file']!r}, not {expected!r}")
    else:
        numbers.append(entry["num_shards"])
        checksums.append(entry["table_sha256"])
    is_sound = all(type(n) is int and 0 <= n < 2**62 for n in numbers) and split in SPLITS
    is_sound &= all(isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in checksums)
    for name in ("num_bytes", "num_documents") if version == 1 else ():
        is_sound &= entry[name] == sum(shard[name] for shard in entry["shards"])
        is_sound &= all(shard[name] > 0 for shard in entry["shards"])
    if not is_sound:
        raise TypeError("its numbers do not add up")
