"""One run, in a process that `queue.py` keeps for many."""

import functools
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from benchmarks.record import device_name

from blt.errors import ConfigurationError

from .plan import Job
from .texts import Files
from .training import Prepared, run


@functools.lru_cache(maxsize=1)
def prepared(files: Files, work: Path, corpus: str) -> Prepared:
    """Return what the runs on a corpus share; that of the last one is kept in memory."""
    return Prepared(files.corpus(corpus), work / corpus)


def run_and_keep(job: Job, files: Files, work: Path, runs: Path) -> None:
    """Run a job on one thread, and append what it came to; where the tuned side is reported, its model is kept too."""
    torch.set_num_threads(1)
    try:
        keep = work / "models" / job.name if job.purpose == "budget" else None
        found = run(job, prepared(files, work, job.corpus), keep=keep)
    except ConfigurationError as error:  # a rule that no threshold brings to that mean length, a shape that none fits
        found = {"failed": str(error), "dev_bits_per_byte": math.inf}
    append(runs, job, found)
    print(job.name, f"{found['dev_bits_per_byte']:.4f}", f"{found.get('seconds', 0):.0f} s", flush=True)


def append(runs: Path, job: Job, found: dict[str, Any]) -> None:
    """Keep what a job came to, as one write."""
    if "test_bits" in found:
        found = found | {"test_bits": [round(bits, 2) for bits in found["test_bits"]]}
    line = json.dumps({"name": job.name, "device": device_name("cpu"), "job": asdict(job)} | found) + "\n"
    with runs.open("a", encoding="utf-8") as file:
        file.write(line)
