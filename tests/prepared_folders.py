"""Prepared folders that no `blt prepare` wrote: of an earlier version, or with made-up shards."""

import hashlib
import json
import os

import numpy as np

from blt.data.index import read_index, read_table
from blt.data.shard_table import RECORD, ends_name, hex_of, record, shard_name, table_name


def as_version_1(folder):
    """Turn a folder into what the first version of the format was: every shard is listed in `index.json`."""
    index = json.loads((folder / "index.json").read_text())
    for split, entry in index["splits"].items():
        table = read_table(folder, split, entry)
        del entry["num_shards"], entry["table_sha256"]
        entry["shards"] = [
            {
                "file": shard_name(split, number),
                "num_bytes": int(row["num_bytes"]),
                "num_documents": int(row["num_documents"]),
                "sha256": hex_of(row["sha256"]),
                "ends_sha256": hex_of(row["ends_sha256"]),
            }
            for number, row in enumerate(table)
        ]
        (folder / table_name(split)).unlink()
    (folder / "index.json").write_text(json.dumps(index | {"version": 1}))


def change_table(folder, change, *, split="train"):
    """Change the table of a split as `change` does in place, and let the index agree with it."""
    table = np.fromfile(folder / table_name(split), RECORD)
    change(table)
    table.tofile(folder / table_name(split))
    index = json.loads((folder / "index.json").read_text())
    index["splits"][split]["table_sha256"] = hashlib.sha256(table.tobytes()).hexdigest()
    (folder / "index.json").write_text(json.dumps(index))


def write_many_shards(folder, *, num_shards, documents_per_shard, document_bytes):
    """Write a training split of shards that all hold the same documents, in little room: sparse files and links."""
    ends = (document_bytes * np.arange(1, documents_per_shard + 1)).astype("<i8").tobytes()
    num_bytes = documents_per_shard * document_bytes
    (folder / "train").mkdir(parents=True)
    first = [folder / name("train", 0) for name in (shard_name, ends_name)]
    with first[0].open("wb") as text:
        text.truncate(num_bytes)
    first[1].write_bytes(ends)
    for number in range(1, num_shards):
        for name, made in zip((shard_name, ends_name), first, strict=True):
            os.link(made, folder / name("train", number))
    row = record(
        num_bytes=num_bytes,
        num_documents=documents_per_shard,
        sha256=hashlib.sha256(first[0].read_bytes()).hexdigest(),
        ends_sha256=hashlib.sha256(ends).hexdigest(),
    )
    (folder / table_name("train")).write_bytes(num_shards * row)
    entry = {
        "num_shards": num_shards,
        "num_documents": num_shards * documents_per_shard,
        "num_bytes": num_shards * num_bytes,
        "table_sha256": hashlib.sha256(num_shards * row).hexdigest(),
        "checksum": 64 * "0",
    }
    index = {"format": "blt-shards", "version": 2, "splits": {"train": entry}}
    (folder / "index.json").write_text(json.dumps(index))
    assert read_index(folder)
