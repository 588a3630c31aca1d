"""Training on one process and on two, threads fixed: DDP, FSDP, one sum by hand, and what the plan predicts of them.

    python benchmarks/scaling.py --text STORIES.txt --out benchmarks/records/scaling-cpu.json

Both processes have one thread and one core. The batch is the same for all ways, so that two processes would be twice
as fast if nothing were exchanged and nothing waited for. The text is prose and Python source in turns, whose rows
differ in patches: that is what balancing evens out. A rank's work is the processor time of the thread that runs forward
and backward; what it waits for others is not in it.

The plan (`blt.planning`) gets figures that are measured here apart from training: the rate of matrix products, what a
process copies per second, and how long the ranks take to sum a large and a small tensor. Its utilisation is that of the
one process, so that what is predicted of two is their speed-up. gloo's threads and the computing share a core:
communication that overlaps takes the core's time all the same, so that the plan without overlap is the one to compare.
"""

import json
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
import torch.distributed as dist
from record import ROOT, write_record
from rich.console import Console
from torch import multiprocessing

from blt.configuration import from_dict, to_dict
from blt.data import Shards, Windows
from blt.distributed import World
from blt.model import BLT, preset
from blt.patching import SpaceRule, patch
from blt.planning import MachineConfig, Workload, estimate
from blt.training.checkpoints import Checkpoints, Progress
from blt.training.loop import Trainer, keep_freed_memory
from blt.training.monitor import Monitor
from blt.training.objectives import BLTObjective
from blt.training.optimizers import AdamWConfig, MuonConfig, build_optimizers
from blt.training.parallelize import Alone
from blt.training.recipe import LoopConfig

CLAIM = (
    "How much faster do two processes train than one, by DDP, FSDP and a sum by hand, how alike do ranks work, and "
    "what does the plan predict?"
)
ROWS, SEQUENCE_LENGTH, PASSAGE_BYTES = 16, 512, 4096
WAYS = {
    "one process": {},
    "sum by hand": {"balance": False},
    "ddp, rows in order": {"balance": False},
    "ddp": {},
    "fsdp": {"parallel": "fsdp"},
}
OPTIMIZERS = {"adamw": AdamWConfig(), "muon": MuonConfig()}


class SummedByHand(Alone):
    """What `World.sum_gradients` did: one message after the backward pass, for all gradients."""

    def sum_gradients(self) -> None:
        """Add up all gradients."""
        gradients = [weight.grad for weight in self.objective.module.parameters()]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))


def passages(text: Path) -> list[bytes]:
    """Return prose and source in turns, of the same length, so that rows differ."""
    prose = text.read_bytes()
    source = b"".join(path.read_bytes() for path in sorted((ROOT / "src").rglob("*.py")))
    starts = range(0, min(len(prose), len(source)) - PASSAGE_BYTES, PASSAGE_BYTES)
    return [part[start : start + PASSAGE_BYTES] for start in starts for part in (prose, source)]


def new_trainer(name: str, *, model: str, optimizer: str, shards: Shards, world: World, folder: Path) -> Trainer:
    """Return a stage that is about to begin."""
    torch.manual_seed(0)
    objective = BLTObjective(BLT(preset(model)), rule=SpaceRule(), slots_multiple=1)
    config = LoopConfig(
        num_steps=100,
        batch_size=ROWS,
        sequence_length=SEQUENCE_LENGTH,
        precision="float32",
        optimizer=OPTIMIZERS[optimizer],
        **WAYS[name],
    )
    trainer = Trainer(
        objective=objective,
        windows=Windows(shards, sequence_length=SEQUENCE_LENGTH, seed=0),
        config=config,
        validate=lambda _: 0.0,
        checkpoints=Checkpoints(folder),
        monitor=Monitor(folder, stage="blt", config=config, console=Console(quiet=True), is_main=False),
        device=torch.device("cpu"),
        world=world,
        asked_to_stop=lambda: False,
        sharing=SummedByHand(objective, config, world=world) if name == "sum by hand" else None,
    )
    trainer.optimizers = build_optimizers(objective.module, config.optimizer)
    trainer.progress = Progress()
    return trainer


def time_steps(trainer: Trainer, *, steps: int, world: World) -> dict[str, list[float]]:
    """Return the seconds of each step and every rank's work in it, after one step that is not timed."""
    seconds, work, costs = [], [], []
    honest = trainer.objective.loss_sum

    def loss_sum(batch: Any) -> torch.Tensor:
        costs.append(sum(trainer.objective.costs(batch) or []))
        return honest(batch)

    trainer.step()
    trainer.objective.loss_sum = loss_sum  # type: ignore[method-assign]
    for _ in range(steps):
        world.wait()
        started, processor = time.perf_counter(), time.thread_time()
        trainer.step()
        seconds.append(time.perf_counter() - started)
        work.append(time.thread_time() - processor)
    trainer.objective.loss_sum = honest  # type: ignore[method-assign]
    return {"seconds": seconds, "work": world.gather(work), "costs": world.gather(costs)}


def spread(values: list[float], *, ranks: int) -> float:
    """Return how much more than the mean the busiest rank has, averaged over steps."""
    by_rank = [values[len(values) // ranks * rank :][: len(values) // ranks] for rank in range(ranks)]
    return statistics.mean(max(step) / statistics.mean(step) - 1 for step in zip(*by_rank, strict=True))


def measured_machine(both: World) -> MachineConfig:
    """Measure what the plan wants to know of this machine, on both ranks at once, as in training."""
    rates, copies, sums = [], [], {2**24: [], 2**10: []}
    left = torch.randn(1024, 1024)
    large = torch.randn(2**24)
    for _ in range(5):
        both.wait()
        started = time.perf_counter()
        left @ left
        rates.append(2 * 1024**3 / (time.perf_counter() - started))
        started = time.perf_counter()
        large.add_(1.0)
        copies.append(2 * large.nbytes / (time.perf_counter() - started))
    for size, seconds in sums.items():
        for _ in range(5):
            message = torch.ones(size // 4)
            both.wait()
            started = time.perf_counter()
            dist.all_reduce(message)
            seconds.append(time.perf_counter() - started)
    latency = statistics.median(sums[2**10])
    seconds = max(1e-9, statistics.median(sums[2**24]) - latency)
    return MachineConfig(
        memory=float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) / 2,
        float32_flops=statistics.median(rates),
        memory_bandwidth=statistics.median(copies),
        ranks_per_node=2,
        bandwidth_inside=2**24 / seconds,  # a ring of two sends the whole once
        bandwidth_between=2**24 / seconds,
        latency_inside=latency / 2,
        watts=1.0,
        source="measured by this script",
    )


def mean_patch(shards: Shards) -> float:
    """Return the bytes per patch of the first batches."""
    windows = Windows(shards, sequence_length=SEQUENCE_LENGTH, seed=0)
    ids = torch.cat([windows.batch(step, rows=ROWS).byte_ids for step in range(4)])
    return ids.numel() / float(patch(ids, SpaceRule()).ends.sum())


def predictions(machine: MachineConfig, *, model: str, optimizer: str, mean: float, alone: float) -> dict[str, Any]:
    """Return the plan's seconds of a step, by ways, with the utilisation at which one process takes what it did."""
    workload = Workload(
        model=preset(model),
        mean_patch_bytes=mean,
        sequence_length=SEQUENCE_LENGTH,
        batch_size=ROWS,
        optimizer="muon" if optimizer == "muon" else "adamw",
        bfloat16=False,
    )
    low, high = 1e-4, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        seconds = estimate(workload, replace(machine, utilisation=middle), ranks=1).step_seconds()
        low, high = (middle, high) if seconds > alone else (low, middle)
    machine = replace(machine, utilisation=high)
    found: dict[str, Any] = {"machine": to_dict(machine), "mean patch bytes": mean}
    for way in ("ddp", "fsdp"):
        plan = estimate(replace(workload, parallel=way), machine, ranks=2)
        found[way] = {
            "seconds of a step": plan.step_seconds(overlap=False),
            "seconds of a step with overlap": plan.step_seconds(),
            "share lost to communication": plan.communication_share(overlap=False),
            "share lost with overlap": plan.communication_share(),
            "times as fast as one process": alone / plan.step_seconds(overlap=False),
        }
    return found


def run(rank: int, meeting: Path, options: dict[str, Any]) -> None:
    """Time all ways in turns on one rank; the first one writes what was found."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    torch.set_num_threads(1)
    keep_freed_memory()
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{meeting}/store", rank=rank, world_size=2)
    both, shards = World(rank=rank, size=2), Shards.from_documents(passages(options["text"]))
    found: dict[str, Any] = {name: [] for name in WAYS}
    machine = to_dict(measured_machine(both))
    trainers = {
        name: new_trainer(
            name,
            model=options["model"],
            optimizer=options["optimizer"],
            shards=shards,
            world=World() if name == "one process" else both,
            folder=meeting,
        )
        for name in WAYS
    }
    for _ in range(options["rounds"]):
        for name, trainer in trainers.items():
            both.wait()
            if name != "one process" or both.is_main:
                found[name].append(time_steps(trainer, steps=options["steps"], world=trainer.world))
    if both.is_main:
        found |= {"machine": machine, "mean patch": mean_patch(shards)}
        (meeting / "found.json").write_text(json.dumps(found))
    both.wait()
    dist.destroy_process_group()


@click.command()
@click.option("--text", type=click.Path(path_type=Path, exists=True), required=True, help="Prose, some 2 MB.")
@click.option("--model", default="tiny", show_default=True)
@click.option("--optimizer", default="adamw", show_default=True, type=click.Choice(list(OPTIMIZERS)))
@click.option("--rounds", default=4, show_default=True)
@click.option("--steps", default=3, show_default=True, help="Steps that are timed in each round.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(out: Path, **options: Any) -> None:
    """Time all ways, and write the record."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.start_processes(run, args=(Path(folder), options), nprocs=2, start_method="fork")
        found = json.loads((Path(folder) / "found.json").read_text())
    machine, mean = from_dict(MachineConfig, found.pop("machine")), found.pop("mean patch")
    results: dict[str, Any] = {"model": options["model"], "optimizer": options["optimizer"]}
    results["bytes of a step"] = ROWS * SEQUENCE_LENGTH
    for name, rounds in found.items():
        seconds = [second for one in rounds for second in one["seconds"]]
        results[name] = {"median seconds of a step": statistics.median(seconds), "seconds": seconds}
        if name != "one process":
            for key, what in (("work", "work"), ("costs", "predicted cost")):
                excess = statistics.mean(spread(one[key], ranks=2) for one in rounds)
                results[name][f"busiest rank above the mean, {what}"] = excess
    alone = results["one process"]["median seconds of a step"]
    for name in found:
        results[name]["times as fast as one process"] = alone / results[name]["median seconds of a step"]
        print(name, {key: value for key, value in results[name].items() if key != "seconds"})
    results["predictions of the plan"] = predictions(
        machine, model=options["model"], optimizer=options["optimizer"], mean=mean, alone=alone
    )
    print("plan", results["predictions of the plan"])
    write_record(out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
