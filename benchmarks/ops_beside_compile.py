"""Our native kernels beside the code that torch.compile generates for a CPU, operation by operation and whole.

    python benchmarks/ops_beside_compile.py --out benchmarks/records/ops-beside-compile-cpu.json

Each operation runs forward and backward, in float32, on the sizes that a training step of the preset gives it: by its
native kernel, by its PyTorch reference, and by Inductor's code for that reference. Attention and pooling have one
document per row and patches of four bytes. Then a whole training step by four ways: kernels (as `blt train` does);
references; compiled (`blt.loop.compile`: kernels where `blt.ops` leaves an operation to them, Inductor's code
elsewhere); and Inductor's code alone. All sides take turns in one process; figures are medians. Compiling is not timed,
but said.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click
import torch
from record import write_record
from torch import Tensor

from blt import ops
from blt.codec import encode
from blt.data import Batch
from blt.generation.speed import TEXT
from blt.model import BLT, PRESETS, BLTConfig
from blt.patching import StaticRule
from blt.training.loop import keep_freed_memory
from blt.training.objectives import BLTObjective

CLAIM = "Native kernels against the code that torch.compile generates, by operation and for a whole training step"
PATCH = 4
Work = Callable[[], object]


def operations(config: BLTConfig, *, rows: int, length: int) -> dict[str, tuple[Callable[..., Tensor], list[Tensor]]]:
    """Return each operation and its inputs, of the sizes that the local decoder and the embedding give it."""
    shape, vectors = config.local_decoder, config.queries_per_patch
    heads = (shape.num_heads, shape.dim // shape.num_heads)
    slots = (torch.arange(length) // PATCH).expand(rows, -1)
    num_slots = -(-length // PATCH)
    table = ops.rotary_table(torch.arange(length).expand(rows, -1), head_dim=heads[1], theta=1e4)
    runs = ops.Runs(torch.zeros(rows, length, dtype=torch.long), window=shape.window)
    indices = torch.randint(6 * config.hash_embedding.num_rows, (rows * length, 6))
    ngrams = torch.randn(6 * config.hash_embedding.num_rows, shape.dim)

    def states(*last: int, at: int = length) -> Tensor:
        return torch.randn(rows, at, *last)

    of_bytes, of_slots = [states(*heads) for _ in range(3)], [states(vectors, *heads, at=num_slots) for _ in range(3)]
    wide = shape.feed_forward_width
    return {
        "RMSNorm": (lambda x, w: ops.rms_norm(x, w, epsilon=1e-5), [states(shape.dim), torch.ones(shape.dim)]),
        "SwiGLU": (ops.swiglu, [states(wide), states(wide)]),
        "residual sum": (lambda x, y: ops.residual_add(x, y, None), [states(shape.dim), states(shape.dim)]),
        "RoPE": (lambda x: ops.rotate(x, table), of_bytes[:1]),
        "attention, window": (lambda q, k, v: ops.attend_to_runs(q, k, v, runs), of_bytes),
        "patches read bytes": (
            lambda q, k, v: ops.attend_within_slots(q, k, v, slots),
            [of_slots[0], *of_bytes[1:]],
        ),
        "bytes read patch": (lambda q, k, v: ops.attend_to_slots(q, k, v, slots), [of_bytes[0], *of_slots[1:]]),
        "max pooling": (lambda x: ops.segment_max(x, slots, num_slots=num_slots), [states(shape.dim)]),
        "n-gram table": (lambda t: ops.embedding_bag(indices, t), [ngrams]),
    }


def forward_and_backward(function: Callable[..., Tensor], inputs: list[Tensor]) -> Work:
    """Return what runs a function and its backward."""
    leaves = [part.clone().requires_grad_() for part in inputs]
    above = torch.randn_like(function(*leaves))
    return lambda: torch.autograd.grad(function(*leaves), leaves, above)


def training_step(config: BLTConfig, *, rows: int, length: int, compiled: bool) -> Work:
    """Return what runs one step of AdamW."""
    torch.manual_seed(0)
    model = BLT(config).train()
    text = TEXT.encode() * (2 + length // len(TEXT))
    ids = torch.stack([encode(text[start * 37 : start * 37 + length + 1]) for start in range(rows)])
    batch = Batch.of(ids)
    objective = BLTObjective(model, rule=StaticRule(length=PATCH), slots_multiple=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    if compiled:
        objective.compile()

    def step() -> float:
        loss = objective.loss_sum(batch) / batch.targets.numel()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def take_turns(
    sides: dict[str, tuple[Work, Callable[[], AbstractContextManager[None]]]], *, rounds: int
) -> dict[str, Any]:
    """Run all sides in turn; the first run of each, which compiles, is apart."""
    first, seconds = {}, {name: list[float]() for name in sides}
    for number in range(rounds + 2):
        for name, (work, within) in sides.items():
            start = time.perf_counter()
            with within():
                work()
            took = time.perf_counter() - start
            if number == 0:
                first[name] = took
            elif number > 1:
                seconds[name].append(took)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {"seconds": medians, "first_seconds": first}


@click.command()
@click.option("--preset", default="tiny", show_default=True, type=click.Choice(list(PRESETS)))
@click.option("--rows", default=4, show_default=True)
@click.option("--length", default=512, show_default=True, help="Bytes of a row.")
@click.option("--rounds", default=15, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write a record there.")
def main(preset: str, rows: int, length: int, rounds: int, threads: int, out: Path | None) -> None:
    """Measure each operation, then a training step."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    torch.manual_seed(0)
    config, found = PRESETS[preset], dict[str, Any]()
    references = ops.only_references
    for name, (function, inputs) in operations(config, rows=rows, length=length).items():
        eager = forward_and_backward(function, inputs)
        with references():
            compiled = forward_and_backward(torch.compile(function, dynamic=False, fullgraph=True), inputs)
        sides = {"kernel": (eager, nullcontext), "reference": (eager, references), "inductor": (compiled, references)}
        found[name] = take_turns(sides, rounds=rounds)
        show(name, found[name], of=rows * length)
    steps = {
        name: (training_step(config, rows=rows, length=length, compiled=is_compiled), within)
        for (is_compiled, within), name in zip(
            itertools.product((False, True), (nullcontext, references)),
            ("kernels", "references", "compiled", "inductor alone"),
            strict=True,
        )
    }
    found["training step"] = take_turns(steps, rounds=rounds)
    show("training step", found["training step"], of=rows * length)
    if out is not None:
        sizes = {"preset": preset, "rows": rows, "length": length, "rounds": rounds, "patch_bytes": PATCH}
        write_record(out, claim=CLAIM, device="cpu", results=sizes | {"operations": found})


def show(name: str, found: dict[str, Any], *, of: int) -> None:
    """Print nanoseconds per byte of every side."""
    sides = (f"{side} {1e9 * seconds / of:,.0f}" for side, seconds in found["seconds"].items())
    click.echo(f"{name:<20}{', '.join(sides)} ns per byte")


if __name__ == "__main__":
    main()
