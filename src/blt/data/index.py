"""`index.json`: what a prepared folder holds."""

import json
import re
from pathlib import Path
from typing import Any

from blt.errors import DataError

FORMAT = "blt-shards"
VERSION = 1
SPLITS = ("train", "validation")


def read_index(folder: Path) -> dict[str, Any]:
    """Read and check the index of a prepared folder.

    Raises:
        DataError: the folder is missing, was not written by `blt prepare`, or by a newer one.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder}: {what}; expected a folder that `blt prepare` wrote")
    path = folder / "index.json"
    try:
        index = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{folder}: has no index.json; expected a folder that `blt prepare` wrote") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error}); prepare again") from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise DataError(f"{path}: is no index of {FORMAT}; expected a folder that `blt prepare` wrote")
    if index.get("version") != VERSION:
        raise DataError(f"{path}: has version {index.get('version')!r}, this blt reads {VERSION}; prepare again")
    _check_fields(path, index)
    return index


def _check_fields(path: Path, index: dict[str, Any]) -> None:
    """Refuse an index whose fields are not what `Shards.open` reads."""
    try:
        for split, entry in index["splits"].items():
            numbers = [entry["num_documents"], entry["num_bytes"]]
            checksums = [entry["checksum"]]
            for number, shard in enumerate(entry["shards"]):
                numbers += [shard["num_documents"], shard["num_bytes"]]
                checksums += [shard["sha256"], shard["ends_sha256"]]
                if shard["file"] != (expected := f"{split}/shard-{number:05d}.bin"):
                    raise TypeError(f"its shard is {shard['file']!r}, not {expected!r}")
            is_sound = all(type(n) is int and 0 <= n < 2**63 for n in numbers) and split in SPLITS
            is_sound &= all(isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in checksums)
            is_sound &= entry["num_bytes"] == sum(shard["num_bytes"] for shard in entry["shards"])
            is_sound &= entry["num_documents"] == sum(shard["num_documents"] for shard in entry["shards"])
            if not is_sound:
                raise TypeError("its numbers do not add up")
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is damaged ({type(error).__name__}: {error}); prepare again") from None
