"""What each change of the training recipe brings, at equal bytes and with the same model.

    python benchmarks/learning.py --train data/tiny-train --dev data/tiny-dev --work runs/learning \
        --out benchmarks/records/learning.json

Each rung of the ladder keeps the changes of those before it.
Model and held-out documents are those of `arms.py`. Stopped, the same command goes on; `--arm` trains some only.
"""

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest import mock

from arms import MUON, MUON_SCHEDULE, PLAIN_SCALE, ROWS, Arm, command_of
from torch import nn

from blt.shapes import Tensor
from blt.training import optimizers

CLAIM = "Smaller steps, small first weights, and what Muon moves and how fast, lower held-out bits per byte"
FIRST = MUON | {"learning_rate": "0.01", "momentum": "0.9", "weight_decay": "0.0", "adamw.learning_rate": "5e-3"}
BEFORE = FIRST | {"learning_rate": "0.02", "momentum": "0.95", "adamw.learning_rate": "3e-3"}
SLOW_START = MUON_SCHEDULE | {"warmup_steps": "50"}


def in_layers_only(_steps: int) -> AbstractContextManager[Any]:
    """Let Muon move the matrices in layers and cross-attentions only; AdamW moves the projections between parts."""

    def hidden_matrices(module: nn.Module) -> list[Tensor]:
        named = [(f".{name}.", part) for name, part in module.named_modules() if isinstance(part, nn.Linear)]
        return [part.weight for name, part in named if ".layers." in name or "cross_attention" in name]

    return mock.patch.object(optimizers, "hidden_matrices", hidden_matrices)


FIRST_RUNG = Arm(
    optimizer=BEFORE,
    schedule=SLOW_START,
    options={},
    rows=2 * ROWS,
    scale_of_first_weights=PLAIN_SCALE,
    within=in_layers_only,
)
SMALLER_STEPS = replace(FIRST_RUNG, rows=ROWS)
SMALL_WEIGHTS = replace(SMALLER_STEPS, scale_of_first_weights=1.0)
FASTER_ADAMW = replace(SMALL_WEIGHTS, optimizer=BEFORE | {"adamw.learning_rate": "5e-3"}, schedule=MUON_SCHEDULE)
SLOWER_MUON = replace(FASTER_ADAMW, optimizer=FIRST)
RUNGS = {
    "before": FIRST_RUNG,
    "half the bytes per step": SMALLER_STEPS,
    "small first weights": SMALL_WEIGHTS,
    "AdamW 5e-3, 20 steps of warm-up": FASTER_ADAMW,
    "Muon 0.01, momentum 0.9": SLOWER_MUON,
    "Muon for the projections between parts": Arm(optimizer=FIRST, options={}),
    "Muon 0.007, 0.014 in the global transformer": Arm(optimizer=FIRST | {"learning_rate": "0.007"}),
    "momentum 0.85, AdamW 3.5e-3, weight decay 0.1": Arm(),
}
main = command_of(RUNGS, claim=CLAIM, megabytes=2.0)


if __name__ == "__main__":
    main()
