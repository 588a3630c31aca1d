"""What each change of the training recipe brings, at equal bytes and with the same model.

    python benchmarks/learning.py --train data/tiny-train --dev data/tiny-dev --work runs/learning \
        --out benchmarks/records/learning.json

Each rung of the ladder keeps the changes of those before it.
Model and held-out documents are those of `optimizers.py`. Stopped, the same command goes on; `--rung` trains some only.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import click
import torch
from optimizers import (
    FASTER_GLOBAL,
    MUON,
    MUON_SCHEDULE,
    PLAIN_SCALE,
    ROWS,
    WINDOW,
    arm_options,
    save_new_model,
    train,
)
from record import write_record
from torch import nn
from torch.nn import functional as F

from blt.lm import ByteLM
from blt.nn import attention
from blt.nn.rotary import RotaryTable
from blt.shapes import Tensor
from blt.training import optimizers

CLAIM = "Smaller steps, small first weights, and what Muon moves and how fast, lower held-out bits per byte"
FIRST = MUON | {"learning_rate": "0.01", "momentum": "0.9", "weight_decay": "0.0", "adamw.learning_rate": "5e-3"}
BEFORE = FIRST | {"learning_rate": "0.02", "momentum": "0.95", "adamw.learning_rate": "3e-3"}
SLOW_START = MUON_SCHEDULE | {"warmup_steps": "50"}


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One way to train."""

    optimizer: dict[str, str]
    schedule: dict[str, str]
    rows: int = ROWS
    scale_of_first_weights: float = 1.0
    """Of n-gram tables and of what is added to residual streams, relative to what `blt` draws."""
    options: dict[str, str] = field(default_factory=dict)
    trained_with: Callable[[], AbstractContextManager[Any]] = nullcontext


@contextmanager
def qk_norm() -> Iterator[None]:
    """Normalise queries and keys, head by head (Henry et al. 2020), without a learnt scale."""
    honest = attention.SelfAttention.forward

    def forward(self: attention.SelfAttention, states: Tensor, table: RotaryTable, attend: attention.Attend) -> Tensor:
        split = (*states.shape[:2], self.num_heads, -1)
        heads = [layer(states).view(split) for layer in (self.query, self.key)]
        normed = [F.rms_norm(some.float(), some.shape[-1:]).to(some.dtype) for some in heads]
        queries, keys = (attention.rotate(some, table) for some in normed)
        return self.output(attend(queries, keys, self.value(states).view(split)).reshape(states.shape))

    attention.SelfAttention.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        attention.SelfAttention.forward = honest  # type: ignore[method-assign]


def in_layers_only() -> AbstractContextManager[Any]:
    """Let Muon move the matrices in layers and cross-attentions only; AdamW moves the projections between parts."""

    def hidden_matrices(module: nn.Module) -> list[Tensor]:
        named = [(f".{name}.", part) for name, part in module.named_modules() if isinstance(part, nn.Linear)]
        return [part.weight for name, part in named if ".layers." in name or "cross_attention" in name]

    return mock.patch.object(optimizers, "hidden_matrices", hidden_matrices)


RUNGS = {
    "before": Rung(
        optimizer=BEFORE,
        schedule=SLOW_START,
        rows=2 * ROWS,
        scale_of_first_weights=PLAIN_SCALE,
        trained_with=in_layers_only,
    ),
    "half the bytes per step": Rung(
        optimizer=BEFORE, schedule=SLOW_START, scale_of_first_weights=PLAIN_SCALE, trained_with=in_layers_only
    ),
    "small first weights": Rung(optimizer=BEFORE, schedule=SLOW_START, trained_with=in_layers_only),
    "AdamW 5e-3, 20 steps of warm-up": Rung(
        optimizer=BEFORE | {"adamw.learning_rate": "5e-3"}, schedule=MUON_SCHEDULE, trained_with=in_layers_only
    ),
    "Muon 0.01, momentum 0.9": Rung(optimizer=FIRST, schedule=MUON_SCHEDULE, trained_with=in_layers_only),
    "Muon for the projections between parts": Rung(optimizer=FIRST, schedule=MUON_SCHEDULE),
    "Muon 0.007, 0.014 in the global transformer": Rung(
        optimizer=FIRST | {"learning_rate": "0.007"}, schedule=MUON_SCHEDULE, options=FASTER_GLOBAL
    ),
    "momentum 0.85, AdamW 3.5e-3, weight decay 0.1": Rung(
        optimizer=MUON, schedule=MUON_SCHEDULE, options=FASTER_GLOBAL
    ),
}


@click.command()
@click.option("--rung", "chosen", type=click.Choice(list(RUNGS)), multiple=True, help="Train these only; no record.")
@click.option("--megabytes", default=2.0, show_default=True, help="Bytes that each rung sees.")
@arm_options
def main(
    train_folder: str,
    dev: str,
    patches_of: str,
    chosen: tuple[str, ...],
    megabytes: float,
    threads: int,
    work: Path,
    out: Path,
) -> None:
    """Train the rungs, and write the record."""
    torch.set_num_threads(threads)
    work.mkdir(parents=True, exist_ok=True)
    donor = ByteLM.from_pretrained(patches_of)
    results: dict[str, Any] = {}
    for name in chosen or RUNGS:
        rung = RUNGS[name]
        start = work / f"new-{rung.scale_of_first_weights:g}"
        if not start.is_dir():
            save_new_model(donor, start, scale=rung.scale_of_first_weights)
        paths = {"start_from": str(start), "data.train": train_folder, "data.validation": dev, "device": "cpu"}
        paths |= rung.options | {"blt.loop.rows": str(rung.rows)}
        steps = int(megabytes * 1e6 / (rung.rows * WINDOW))
        with rung.trained_with():
            results[name] = train(name, rung.optimizer, rung.schedule, steps=steps, paths=paths, work=work)
    if not chosen:
        write_record(out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
