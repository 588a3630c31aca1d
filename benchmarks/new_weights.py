"""How a rank starts under FSDP with new weights: how long it draws them, and how much memory it takes.

    python benchmarks/new_weights.py --model blt-8b --ranks 64 --out benchmarks/records/new-weights-cpu.json

One process is the first of that many ranks; the others are simulated (PyTorch's fake process group), since nothing is
exchanged before the first step.
"""

import resource
import time
from pathlib import Path
from typing import Any

import click
import torch
import torch.distributed as dist
from record import write_record
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from blt.distributed import World
from blt.model import BLT, preset
from blt.patching import SpaceRule
from blt.training import sharding
from blt.training.new_weights import NewWeights
from blt.training.objectives import BLTObjective
from blt.training.recipe import LoopConfig

CLAIM = "Under FSDP a rank starts with its part of the new weights, and never holds the whole model."


def peak_bytes() -> int:
    """Return the most memory that this process has held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@click.command()
@click.option("--model", default="blt-8b", show_default=True)
@click.option("--ranks", default=64, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(model: str, ranks: int, threads: int, out: Path) -> None:
    """Start as the first of so many ranks, and write the record."""
    torch.set_num_threads(threads)
    sharding.Saver = lambda _: None  # type: ignore[misc,assignment]  (it needs a group of real processes)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    torch.manual_seed(0)
    before, started = peak_bytes(), time.perf_counter()
    new = NewWeights(lambda: BLT(preset(model)))
    objective = BLTObjective(new.module, rule=SpaceRule(), slots_multiple=1)
    built = time.perf_counter()
    config = LoopConfig(num_steps=1, parallel="fsdp")
    sharding.Sharded(objective, config, world=World(size=ranks), device=torch.device("cpu"), new_weights=new)
    held = [weight.to_local() for weight in objective.module.parameters() if isinstance(weight, DTensor)]
    results: dict[str, Any] = {
        "model": model,
        "ranks": ranks,
        "bytes of all weights": sum(weight.nbytes for weight in objective.module.parameters()),
        "bytes of this rank's weights": sum(weight.nbytes for weight in held),
        "peak bytes of the process before": before,
        "peak bytes of the process": peak_bytes(),
        "seconds until built without memory": built - started,
        "seconds until all weights are drawn": time.perf_counter() - started,
    }
    print(results)
    write_record(out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
