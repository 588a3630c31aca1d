"""Bytes per second of training, against transformers' BLT, interleaved in one go.

    pip install transformers
    python benchmarks/training.py --out benchmarks/records/training-cpu.json

Both have the shape `tinystories-55m`, new weights and a threshold that gives 4.4 bytes per patch on what they read, and
are trained on the same 8 × 512 bytes by PyTorch's AdamW, in float32 and under bfloat16 autocast. Each round runs every
side once, in a process of its own, so that its peak memory is known; the rate of matrix products is measured in each
of our processes, right before and after. Figures are medians over all rounds' steps.

The share of that rate counts what the model needs (`blt plan`): forward and backward of the BLT at its mean patch
length, and nothing that an implementation wastes.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from decoding import transformers_blt_model
from record import write_record

from blt.cli.bench import MEAN_PATCH_BYTES, model_to_measure
from blt.codec import encode
from blt.data import Batch
from blt.generation.speed import TEXT, measure_limits
from blt.model.cost import cost_of
from blt.patching import EntropyRule, mean_patch_bytes, patch
from blt.training.loop import keep_freed_memory
from blt.training.objectives import BLTObjective

CLAIM = "Training the reference shape against transformers' BLT, at equal bytes per patch and batch"
ROWS, LENGTH = 8, 512
SIDES = ("blt fp32", "transformers fp32", "blt bf16", "transformers bf16")


def batch() -> torch.Tensor:
    text = TEXT.encode() * (2 + LENGTH // len(TEXT))
    return torch.stack([encode(text[start * 37 : start * 37 + LENGTH + 1]) for start in range(ROWS)])


def threshold(entropies: torch.Tensor) -> float:
    return float(entropies.flatten().quantile(1 - 1 / MEAN_PATCH_BYTES))


def ours(*, bf16: bool) -> tuple[Callable[[], float], dict[str, Any]]:
    keep_freed_memory()
    lm = model_to_measure(None, "tinystories-55m", dtype="float32", device="cpu")
    rows = Batch.of(batch())
    byte_ids, targets = rows.byte_ids, rows.targets
    entropies = lm.entropies(byte_ids)
    rule = EntropyRule(threshold=threshold(entropies))
    rows = replace(rows, entropies=entropies)
    mean_patch = mean_patch_bytes(patch(byte_ids, rule, entropies=entropies), byte_ids)
    objective = BLTObjective(lm.blt.train(), rule=rule, slots_multiple=1)
    optimizer = torch.optim.AdamW(lm.blt.parameters(), lr=1e-4, fused=True)

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = objective.loss_sum(rows) / targets.numel()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    flops = cost_of(lm.blt.config, mean_patch_bytes=mean_patch, context_bytes=LENGTH).training_flops
    return step, {"mean_patch_bytes": mean_patch, "flops_per_byte": flops}


def theirs(*, bf16: bool) -> tuple[Callable[[], float], dict[str, Any]]:
    model = transformers_blt_model().train()
    optimizer = torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=1e-4)
    ids = batch()[:, :-1]
    with torch.no_grad():
        entropies = model.model.patcher(ids)[0]
        model.config.patching_threshold = model.model.config.patching_threshold = threshold(entropies)
        lengths = model.model.patcher(ids, patch_size=4, threshold=model.config.patching_threshold)[1]

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, {"mean_patch_bytes": ids.numel() / int((lengths > 0).sum())}


def run_side(side: str, *, steps: int, threads: int) -> dict[str, Any]:
    """Train one side, here."""
    torch.set_num_threads(threads)
    bf16 = side.endswith("bf16")
    is_ours = side.startswith("blt")
    dtype = torch.bfloat16 if bf16 else torch.float32
    before = measure_limits(torch.device("cpu"), dtype=dtype).flops_per_second if is_ours else None
    step, facts = (ours if is_ours else theirs)(bf16=bf16)
    seconds, losses = [], []
    for number in range(steps + 2):  # two warm up
        start = time.perf_counter()
        losses.append(step())
        if number >= 2:
            seconds.append(time.perf_counter() - start)
    facts |= {"seconds": seconds, "losses": losses}
    facts["peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if before is not None:
        facts["flops_per_second"] = [before, measure_limits(torch.device("cpu"), dtype=dtype).flops_per_second]
    return facts


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of one side's rounds."""
    seconds = statistics.median(second for found in rounds for second in found["seconds"])
    rate = ROWS * LENGTH / seconds
    medians: dict[str, Any] = {
        "bytes_per_second": rate,
        "peak_bytes": statistics.median(found["peak_bytes"] for found in rounds),
        "mean_patch_bytes": rounds[0]["mean_patch_bytes"],
        "losses": rounds[0]["losses"],
    }
    if "flops_per_byte" in rounds[0]:
        products = statistics.median(rate for found in rounds for rate in found["flops_per_second"])
        medians |= {"flops_per_byte": rounds[0]["flops_per_byte"], "matrix_products_per_second": products}
        medians["share_of_matrix_products"] = rate * rounds[0]["flops_per_byte"] / products
    return medians


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--steps", default=4, show_default=True, help="In each round; two more warm up.")
@click.option("--threads", default=2, show_default=True)
@click.option("--side", type=click.Choice(SIDES), help="Run this side alone, and print what was found.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a record there.")
def main(rounds: int, steps: int, threads: int, side: str | None, out: Path | None) -> None:
    """Measure all sides in turn."""
    torch.set_num_threads(threads)
    if side is not None:
        click.echo(json.dumps(run_side(side, steps=steps, threads=threads)))
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    for _ in range(rounds):
        for name in SIDES:
            command = [sys.executable, __file__, "--side", name, "--steps", str(steps), "--threads", str(threads)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            click.echo(f"{name:<20}{ROWS * LENGTH / statistics.median(found[name][-1]['seconds']):>8.0f} bytes/s")
    results: dict[str, Any] = {name: summary(rounds_of_side) for name, rounds_of_side in found.items()}
    for dtype in ("fp32", "bf16"):
        one, other = results[f"blt {dtype}"], results[f"transformers {dtype}"]
        results[f"ratio {dtype}"] = one["bytes_per_second"] / other["bytes_per_second"]
        share = one["share_of_matrix_products"]
        click.echo(f"{dtype}: {results[f'ratio {dtype}']:.2f} times transformers, {share:.0%} of matrix products")
        click.echo(f"  peak {one['peak_bytes'] / 2**20:.0f} MiB against {other['peak_bytes'] / 2**20:.0f} MiB")
    if out is not None:
        write_record(out, claim=CLAIM, device="cpu", results=results | {"rounds": found})


if __name__ == "__main__":
    main()
