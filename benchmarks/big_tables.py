"""A training step with n-gram tables of the paper's size: dense gradients and AdamW, or sparse ones and `RowAdam`.

    python benchmarks/big_tables.py --threads 2 --out benchmarks/records/big-tables-cpu.json

The shape is `tinystories-55m` with six tables of many rows. Both ways start from the same weights and read the same
made-up bytes; they take turns, since both at once need much memory. Dense tables of 500,002 rows need about 13 GB.
"""

import gc
import resource
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from record import write_record

from blt.codec import BYTE_OFFSET
from blt.data import Batch
from blt.model import BLT, HashConfig, preset
from blt.patching import StaticRule
from blt.training.loop import keep_freed_memory
from blt.training.objectives import BLTObjective
from blt.training.optimizers import AdamWConfig, build_optimizers, clip_gradients

CLAIM = "With tables of the paper's size, sparse gradients make a training step cost what its batch reads"
ROWS, WINDOW, BYTES_PER_PATCH = 8, 512, 4


def made_up_batch(generator: torch.Generator) -> Batch:
    """Draw bytes that are unlike from row to row, as letters of a text are: 27 of them."""
    ids = torch.randint(BYTE_OFFSET + 96, BYTE_OFFSET + 123, (ROWS, WINDOW + 1), generator=generator)
    return Batch.of(ids)


def time_steps(*, num_rows: int, is_sparse: bool, steps: int) -> dict[str, Any]:
    """Train a few steps, and give the seconds of each but the first."""
    torch.manual_seed(0)
    blt = BLT(replace(preset("tinystories-55m"), hash_embedding=HashConfig(num_rows=num_rows)))
    blt.hash_embedding.sparse_gradients = is_sparse
    objective = BLTObjective(blt, rule=StaticRule(length=BYTES_PER_PATCH), slots_multiple=1)
    optimizers = build_optimizers(blt, AdamWConfig())
    generator = torch.Generator().manual_seed(0)
    seconds, losses = [], []
    for _ in range(steps + 1):
        batch = made_up_batch(generator)
        started = time.perf_counter()
        loss = objective.loss_sum(batch) / batch.targets.numel()
        torch.autograd.backward(loss)
        clip_gradients(blt.parameters(), max_norm=1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - started)
        losses.append(loss.item())
    return {"seconds": seconds[1:], "losses": losses}


@click.command()
@click.option("--num-rows", default=500_002, show_default=True, help="Rows of each of the six tables.")
@click.option("--rounds", default=2, show_default=True)
@click.option("--steps", default=3, show_default=True, help="Steps that are timed in each round.")
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(num_rows: int, rounds: int, steps: int, threads: int, out: Path) -> None:
    """Time both ways in turns, and write the record."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    results: dict[str, Any] = {"rows of each table": num_rows, "batch": [ROWS, WINDOW], "sparse": [], "dense": []}
    for _ in range(rounds):
        for name in ("sparse", "dense"):
            results[name].append(time_steps(num_rows=num_rows, is_sparse=name == "sparse", steps=steps))
            gc.collect()
            print(name, results[name][-1], flush=True)
    medians = {
        name: statistics.median(second for found in results[name] for second in found["seconds"])
        for name in ("sparse", "dense")
    }
    results["median seconds of a step"] = medians
    results["times as fast"] = medians["dense"] / medians["sparse"]
    results["peak resident bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(medians, results["times as fast"])
    write_record(out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
