"""What a GPU does: training, prefill, and decoding by ordinary and by static steps, in bytes per second; and memory.

    python benchmarks/gpu.py --out benchmarks/records/gpu.json

On a machine without a GPU, `--quick --shape tiny --rows 1` shows that the script works, in minutes that are mostly the
compiler's; its figures say nothing. Nothing but PyTorch and this package is needed, and no network. What cannot be
measured (too little memory, no compiler) is noted with its reason, and the rest goes on.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from record import ROOT, write_record

from blt.api import ByteLM
from blt.cli.bench import model_to_measure
from blt.codec import encode
from blt.data import Batch
from blt.distributed import choose_device
from blt.errors import BLTError
from blt.generation.speed import TEXT, measure_decoding, measure_limits, measure_prefill
from blt.lm import StaticConfig
from blt.model.cost import cost_of
from blt.patching import mean_patch_bytes, patch
from blt.training import load_recipe
from blt.training.objectives import BLTObjective
from blt.training.optimizers import build_optimizers

CLAIM = (
    "Bytes per second of training, decoding and prefill on one GPU at new weights and 4.4 bytes per patch: eager "
    "beside compiled, ordinary beside static steps, with peak memory"
)
RECIPE = ROOT / "recipes" / "tinystories-55m-best.toml"
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}


def training(shape: str, device: torch.device, *, quick: bool, compiled: bool, bf16: bool) -> dict[str, Any]:
    """Train on a recipe's batch by its optimiser; patches come from stored entropies, as in a run."""
    stage = load_recipe(RECIPE).blt
    loop = replace(stage.loop, batch_size=2, sequence_length=128) if quick else stage.loop
    lm = model_to_measure(None, shape, dtype="float32", device=str(device))
    rows, entropies = _rows(lm, rows=loop.batch_size, length=loop.sequence_length)
    batch = replace(rows, entropies=entropies)  # on the host, as the loader leaves it
    mean_patch = mean_patch_bytes(patch(batch.byte_ids, lm.patch_rule, entropies=entropies), batch.byte_ids)
    objective = BLTObjective(lm.blt.train(), rule=lm.patch_rule, slots_multiple=64)
    if compiled:
        objective.compile()
    optimizers = build_optimizers(lm.blt, loop.optimizer, parts=stage.parts)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            nats = objective.loss_sum(batch)
        (nats / batch.targets.numel()).backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    seconds = _timed(step, device, warm_up=1 if quick else 5, times=2 if quick else 30)
    rate = batch.byte_ids.numel() / statistics.median(seconds)
    flops = cost_of(lm.blt.config, mean_patch_bytes=mean_patch, context_bytes=loop.sequence_length).training_flops
    return {
        "bytes_per_second": rate,
        "spread": [batch.byte_ids.numel() / found for found in (max(seconds), min(seconds))],
        "batch": list(batch.byte_ids.shape),
        "mean_patch_bytes": mean_patch,
        "flops_per_second": rate * flops,
    }


def decoding(shape: str, device: torch.device, *, quick: bool, dtype: str, rows: int, static: bool) -> dict[str, Any]:
    """Read a text byte by byte in every row, and choose each byte on the host, as generation does."""
    lm = model_to_measure(None, shape, dtype=DTYPES[dtype], device=str(device))
    num_bytes = 16 if quick else 256
    speed = measure_decoding(
        lm,
        limits=measure_limits(lm.device),
        text=TEXT.encode(),
        num_bytes=num_bytes,
        batch=rows,
        repeats=1 if quick else 3,
        static=StaticConfig(num_rows=rows, max_patches=512) if static else None,
    )
    return {"bytes_per_second": speed.bytes_per_second, "bytes_per_second_of_a_row": speed.bytes_per_second / rows}


def prefill(shape: str, device: torch.device, *, quick: bool, dtype: str) -> dict[str, Any]:
    """Read a prompt in one parallel pass."""
    lm = model_to_measure(None, shape, dtype=DTYPES[dtype], device=str(device))
    length, repeats = (256, 1) if quick else (4096, 5)
    limits = measure_limits(lm.device)
    speed = measure_prefill(lm, limits=limits, text=TEXT.encode(), num_bytes=length, repeats=repeats)
    return {"bytes_per_second": speed.bytes_per_second, "prompt_bytes": length}


def _rows(lm: ByteLM, *, rows: int, length: int) -> tuple[Batch, torch.Tensor | None]:
    """Return rows of the sample text on the host, and the entropies of their bytes."""
    text = TEXT.encode() * (2 + (37 * rows + length) // len(TEXT))
    batch = Batch.of(torch.stack([encode(text[37 * row : 37 * row + length + 1]) for row in range(rows)]))
    entropies = lm.entropies(batch.byte_ids.to(lm.device))
    return batch, None if entropies is None else entropies.cpu()


def _timed(run: Callable[[], None], device: torch.device, *, warm_up: int, times: int) -> list[float]:
    seconds = []
    for number in range(warm_up + times):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        if number >= warm_up:
            seconds.append(time.perf_counter() - start)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _measured(run: Callable[..., dict[str, Any]], shape: str, device: torch.device, **options: Any) -> dict[str, Any]:
    """Measure one thing from a clean start, with its peak of the GPU's memory; or note why it cannot be."""
    torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    try:
        found = run(shape, device, **options)
    except (BLTError, RuntimeError) as error:  # out of memory, no Triton
        return {"failed": (str(error).strip() or type(error).__name__).splitlines()[0]}
    if device.type == "cuda":
        found["peak_bytes"] = torch.cuda.max_memory_allocated(device)
    return found | {"seconds_in_all": time.perf_counter() - start}


@click.command()
@click.option("--shape", default="tinystories-55m", show_default=True, help="A preset.")
@click.option("--device", "name", default="auto", show_default=True)
@click.option("--quick", is_flag=True, help="Few bytes, rows and repeats: shows that everything runs.")
@click.option("--rows", default="1,32", show_default=True, help="Rows that are decoded together.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a record there.")
def main(shape: str, name: str, quick: bool, rows: str, out: Path | None) -> None:
    """Measure all of it."""
    device = choose_device(name)
    results: dict[str, Any] = {"shape": shape, "quick": quick, "training": {}, "decoding": {}, "prefill": {}}

    def note(group: str, what: str, run: Callable[..., dict[str, Any]], **options: Any) -> None:
        results[group][what] = _measured(run, shape, device, quick=quick, **options)
        click.echo(f"{group}, {what}: {json.dumps(results[group][what])}")

    for compiled in (False, True):
        for dtype in DTYPES:
            what = f"{dtype}, {'compiled' if compiled else 'eager'}"
            note("training", what, training, compiled=compiled, bf16=dtype == "bf16")
    for dtype in DTYPES:
        note("prefill", dtype, prefill, dtype=dtype)
        for count in map(int, rows.split(",")):
            for static in (False, True):
                what = f"{dtype}, {count} rows, {'static compiled' if static else 'ordinary'} steps"
                note("decoding", what, decoding, dtype=dtype, rows=count, static=static)
    if out is not None:
        write_record(out, claim=CLAIM, device=str(device), results=results)


if __name__ == "__main__":
    main()
