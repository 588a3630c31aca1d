"""What else was tried on the training recipe, one change at a time, at equal bytes.

    python benchmarks/tried.py --train data/tiny-train --dev data/tiny-dev --work runs/tried \
        --out benchmarks/records/tried.json

Every arm trains the small model of `arms.py` as the recipe does but for one change, and is measured on the same
held-out documents of DEV. The recipe itself is trained from three seeds: what differs less than they do says nothing.
Each step reads 6,144 bytes, unless the arm's name says otherwise. Stopped, the same command goes on.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import torch
from arms import FASTER_GLOBAL, MUON, MUON_SCHEDULE, Arm, command_of
from learning import in_layers_only
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from blt.data import Batch, Windows
from blt.loss import NOT_PREDICTED
from blt.model import BLT
from blt.nn import attention
from blt.ops import RotaryTable, orthogonalise, rotate
from blt.shapes import Tensor
from blt.training import loop, muon, objectives
from blt.training.optimizers import build_optimizers

CLAIM = "What one further change of the recipe brings, beside the spread of three seeds"


def soft_cap(_steps: int) -> AbstractContextManager[Any]:
    """Bend logits to stay within ±15 (Gemma 2, 2024)."""
    honest = BLT.logits
    return mock.patch.object(BLT, "logits", lambda self, states: 15 * torch.tanh(honest(self, states) / 15))


def z_loss(_steps: int) -> AbstractContextManager[Any]:
    """Add 1e-4 times the squared logarithm of the softmax's denominator (PaLM, 2022)."""
    honest = objectives.next_byte_loss

    def next_byte_loss(logits: Tensor, targets: Tensor) -> Tensor:
        nats = honest(logits, targets)
        if not torch.is_grad_enabled():
            return nats
        return nats + 1e-4 * logits.logsumexp(-1)[targets != NOT_PREDICTED].square().sum()

    return mock.patch.object(objectives, "next_byte_loss", next_byte_loss)


def qk_norm(_steps: int) -> AbstractContextManager[Any]:
    """Normalise queries and keys, head by head (Henry et al. 2020), without a learnt scale."""

    def forward(self: attention.SelfAttention, states: Tensor, table: RotaryTable, attend: attention.Attend) -> Tensor:
        split = (*states.shape[:2], self.num_heads, -1)
        heads = [layer(states).view(split) for layer in (self.query, self.key)]
        normed = [F.rms_norm(some.float(), some.shape[-1:]).to(some.dtype) for some in heads]
        queries, keys = (rotate(some, table) for some in normed)
        return self.output(attend(queries, keys, self.value(states).view(split)).reshape(states.shape))

    return mock.patch.object(attention.SelfAttention, "forward", forward)


@contextmanager
def two_bytes_ahead(steps: int) -> Iterator[None]:
    """Let a matrix on top of the last states predict the byte after the next too; its share falls from 0.2 to 0."""
    honest, honest_logits, done = objectives.BLTObjective.loss_sum, BLT.logits, 0
    seen: dict[str, Tensor] = {}
    head: dict[str, Any] = {}

    def logits(self: BLT, states: Tensor) -> Tensor:
        seen["states"] = states
        return honest_logits(self, states)

    def loss_sum(self: objectives.BLTObjective, batch: Batch) -> Tensor:
        nonlocal done
        loss = honest(self, batch)
        if not self.module.training:
            return loss
        states, done = seen["states"], done + 1
        if head:
            head["optimizer"].step()
            head["optimizer"].zero_grad()
        else:
            width = states.shape[-1]
            head["matrix"] = nn.Parameter(torch.randn(width, width) * width**-0.5)
            head["optimizer"] = torch.optim.AdamW([head["matrix"]], lr=3e-3)
        later = F.pad(batch.targets[:, 1:], (0, 1), value=NOT_PREDICTED)
        later = torch.where(batch.targets == NOT_PREDICTED, NOT_PREDICTED, later)
        draft = F.rms_norm(states.float(), states.shape[-1:]) @ head["matrix"]
        ahead = F.linear(draft, self.module.hash_embedding.bytes.weight).float()
        return loss + 0.2 * (1 - done / steps) * objectives.next_byte_loss(ahead, later)

    with mock.patch.object(objectives.BLTObjective, "loss_sum", loss_sum), mock.patch.object(BLT, "logits", logits):
        yield


class NorMuon(muon.Muon):
    """Muon whose moved rows are brought to one size (Li et al. 2025)."""

    def _move(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state |= {
                "momentum_buffer": torch.zeros_like(gradient),
                "second": weight.new_zeros(len(weight), 1),
                "steps": weight.new_zeros(()),
            }
        average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        move = orthogonalise(gradient.lerp(average, group["momentum"]), num_iterations=group["num_iterations"])
        state["steps"] += 1
        state["second"].lerp_(move.square().mean(1, keepdim=True), 0.05)
        even = move / (state["second"] / (1 - 0.95 ** state["steps"])).sqrt().add(1e-8)
        even *= move.norm() / even.norm()
        weight.add_(even, alpha=-group["lr"] * max(1, weight.shape[0] / weight.shape[1]) ** 0.5)


class Averager(Optimizer):
    """Keeps an average of all weights, and puts it in their place after the last step."""

    def __init__(self, weights: list[Tensor], *, steps: int) -> None:
        super().__init__(weights, {"lr": 0.0, "peak": 0.0})
        self.left = steps
        self.averages = [weight.detach().clone() for weight in weights]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 (no loss is evaluated again)
        """Take the weights in."""
        self.left -= 1
        for weight, average in zip(self.param_groups[0]["params"], self.averages, strict=True):
            average.lerp_(weight, 0.02)
            if self.left == 0:
                weight.copy_(average)


def averaged(steps: int) -> AbstractContextManager[Any]:
    """Measure an average of the last weights, of which each step counts 2% less than the one after it."""

    def build(module: nn.Module, *arguments: Any, **options: Any) -> list[Optimizer]:
        return [*build_optimizers(module, *arguments, **options), Averager(list(module.parameters()), steps=steps)]

    return mock.patch.object(loop, "build_optimizers", build)


def growing_steps(steps: int) -> AbstractContextManager[Any]:
    """Read 4 kB per step in the first half of the steps and 8 kB in the second, of the same windows in the same order.

    Where half the steps are an odd number, two windows are read twice.
    """
    honest, half = Windows.batch, steps // 2

    def batch(self: Windows, step: int, **_rows: int) -> Batch:
        if step < half:
            return honest(self, step, rows=2)
        return honest(self, step - half + half // 2, rows=4)

    return mock.patch.object(Windows, "batch", batch)


def all_decays(_steps: int) -> AbstractContextManager[Any]:
    """Let bytes, tables and norms decay too, by 0.1."""

    def build(module: nn.Module, *arguments: Any, **options: Any) -> list[Optimizer]:
        optimizers = build_optimizers(module, *arguments, **options)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["weight_decay"] = 0.1
        return optimizers

    return mock.patch.object(loop, "build_optimizers", build)


ARMS = {
    "the recipe": Arm(),
    "the recipe, seed 1": Arm(seed=1),
    "the recipe, seed 2": Arm(seed=2),
    "12 kB per step": Arm(rows=6),
    "4 kB per step": Arm(rows=2),
    "4 kB per step, then 8 kB": Arm(within=growing_steps),
    "windows of 512 bytes": Arm(rows=12, window=512),
    "windows of 6,144 bytes": Arm(rows=1, window=6144),
    "Muon in layers and cross-attentions only": Arm(within=in_layers_only),
    "one rate in all parts": Arm(options={}),
    "momentum 0.95": Arm(optimizer=MUON | {"momentum": "0.95"}),
    "no weight decay": Arm(optimizer=MUON | {"weight_decay": "0.0"}),
    "weight decay of bytes, tables and norms": Arm(within=all_decays),
    "n-gram dropout 0.1": Arm(options=FASTER_GLOBAL | {"blt.ngram_dropout": "0.1"}),
    "layer dropout 0.1": Arm(options=FASTER_GLOBAL | {"blt.layer_dropout": "0.1"}),
    "rate falls from the start": Arm(schedule=MUON_SCHEDULE | {"decay_fraction": "1.0"}),
    "cosine": Arm(schedule=MUON_SCHEDULE | {"type": "cosine"}),
    "average of weights, rate stays": Arm(schedule=MUON_SCHEDULE | {"decay_fraction": "1e-9"}, within=averaged),
    "z-loss": Arm(within=z_loss),
    "soft cap of logits": Arm(within=soft_cap),
    "QK-norm": Arm(within=qk_norm),
    "two bytes ahead": Arm(within=two_bytes_ahead),
    "NorMuon": Arm(within=lambda _steps: mock.patch("blt.training.optimizers.Muon", NorMuon)),
    "rows of tables wait (RowAdam)": Arm(options=FASTER_GLOBAL | {"blt.sparse_ngrams": "true"}),
}


main = command_of(ARMS, claim=CLAIM, megabytes=2.5)


if __name__ == "__main__":
    main()
