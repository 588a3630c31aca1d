"""Opening a corpus of 100,000 shards and 10^9 documents, and what a step's batch of it costs.

    python benchmarks/large_corpus.py --folder /tmp/large-corpus --threads 1 --out benchmarks/records/large-corpus.json

The corpus is made up: each shard is a sparse file of its own, of as many equal documents, and all shards share the file
of their ends by hard links. So no reading from a disk is measured, but every file that a batch needs is opened, and its
documents are searched. The folder is left behind if it was there before.
"""

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from record import write_record

from blt.data import Shards, Windows
from blt.data.shard_table import ends_name, record, shard_name, table_name

CLAIM = (
    "A corpus of 100,000 shards and 10^9 documents opens in less than 2 s and 200 MB, "
    "and a step's batch takes less than 5 ms"
)
LINKS_PER_FILE = 50_000
"""A file system may refuse more names for one file."""


def make_corpus(folder: Path, *, num_shards: int, documents: int, document_bytes: int) -> None:
    """Write the index, the table and the shards of a training split."""
    (folder / "train").mkdir(parents=True)
    ends = (document_bytes * np.arange(1, documents + 1)).astype("<i8").tobytes()
    size = documents * document_bytes
    for number in range(num_shards):
        with (folder / shard_name("train", number)).open("wb") as text:
            text.truncate(size)
        named = folder / ends_name("train", number)
        if number % LINKS_PER_FILE:
            os.link(folder / ends_name("train", number - number % LINKS_PER_FILE), named)
        else:
            named.write_bytes(ends)
    digests = {"sha256": hashlib.sha256(bytes(size)).hexdigest(), "ends_sha256": hashlib.sha256(ends).hexdigest()}
    table = num_shards * record(num_bytes=size, num_documents=documents, **digests)
    (folder / table_name("train")).write_bytes(table)
    entry = {
        "num_shards": num_shards,
        "num_documents": num_shards * documents,
        "num_bytes": num_shards * size,
        "table_sha256": hashlib.sha256(table).hexdigest(),
        "checksum": 64 * "0",
    }
    index = {"format": "blt-shards", "version": 2, "splits": {"train": entry}}
    (folder / "index.json").write_text(json.dumps(index))


def resident() -> int:
    """Return the bytes of memory that this process holds and shares with no file."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


def measure(folder: Path, *, rows: int, sequence_length: int, steps: int) -> dict[str, Any]:
    """Open the corpus and take batches of steps far apart, in this process."""
    before, started = resident(), time.perf_counter()
    shards = Shards.open(folder)
    windows = Windows(shards, sequence_length=sequence_length, seed=0)
    opened, held = time.perf_counter() - started, resident() - before
    apart = windows.num_windows // rows // steps
    seconds = []
    for step in range(steps):
        started = time.perf_counter()
        windows.batch(step * apart, rows=rows)
        seconds.append(time.perf_counter() - started)
    return {
        "shards": shards.num_shards,
        "documents": shards.num_documents,
        "bytes": shards.num_bytes,
        "windows": windows.num_windows,
        "seconds to open": opened,
        "bytes held once open": held,
        "bytes held after all steps": resident() - before,
        "rows": rows,
        "ids per row": sequence_length,
        "steps": steps,
        "median milliseconds per batch": 1e3 * statistics.median(seconds),
        "95th percentile": 1e3 * sorted(seconds)[int(0.95 * steps)],
        "first batch": 1e3 * seconds[0],
    }


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Where the corpus is, or will be made.")
@click.option("--shards", "num_shards", default=100_000, show_default=True)
@click.option("--documents", default=10_000, show_default=True, help="In each shard.")
@click.option("--document-bytes", default=1000, show_default=True)
@click.option("--steps", default=200, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--one", nargs=2, type=int, hidden=True, help="Measure these rows and ids per row in this process.")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    folder: Path,
    num_shards: int,
    documents: int,
    document_bytes: int,
    steps: int,
    threads: int,
    one: tuple[int, int] | None,
    out: Path | None,
) -> None:
    """Make the corpus if it is not there, and measure each size of batch in a process of its own."""
    torch.set_num_threads(threads)
    if one:
        print(json.dumps(measure(folder, rows=one[0], sequence_length=one[1], steps=steps)))
        return
    was_there = folder.exists()
    if not was_there:
        make_corpus(folder, num_shards=num_shards, documents=documents, document_bytes=document_bytes)
    results = []
    for rows, sequence_length in ((16, 512), (8, 2048), (16, 2048), (16, 8192)):
        command = [sys.executable, __file__, "--folder", str(folder), "--steps", str(steps), "--threads", str(threads)]
        done = subprocess.run([*command, "--one", str(rows), str(sequence_length)], stdout=subprocess.PIPE, check=True)
        results.append(json.loads(done.stdout))
        print(json.dumps(results[-1], indent=1))
    if not was_there:
        shutil.rmtree(folder)
    if out is not None:
        write_record(out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
