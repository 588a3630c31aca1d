"""Checkpoints of a training stage: everything that an exact resume needs, whole or absent, without pickle.

checkpoints/
step-00000500/   weights.safetensors, optimizers.safetensors, state.json
last.json        names the newest; written after its folder is whole
best.json        names the one with the lowest held-out bits per byte
"""

import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from blt.checkpoint import load_json, load_tensors, load_weights, save_tensors, write_folder, write_json
from blt.errors import CheckpointError
from blt.shapes import Tensor


@dataclass
class Progress:
    """Where a stage stands."""

    step: int = 0
    """Optimiser steps done."""
    num_bytes: int = 0
    """Bytes of text that were predicted so far."""
    seconds: float = 0.0
    """Time spent so far, over all resumptions."""
    best_bits_per_byte: float | None = None
    """Lowest held-out figure so far."""
    is_finished: bool = False
    """Whether it did all its steps; a recipe with more of them goes on."""

    def is_better(self, bits_per_byte: float) -> bool:
        """Say whether a held-out figure is the lowest so far."""
        return math.isfinite(bits_per_byte) and (
            self.best_bits_per_byte is None or bits_per_byte < self.best_bits_per_byte
        )


class Checkpoints:
    """The checkpoints of one stage."""

    def __init__(self, folder: Path, *, keep_every: int | None = None) -> None:
        self.folder = folder
        self.keep_every = keep_every

    def save(self, module: nn.Module, optimizers: list[Optimizer], progress: Progress, *, is_best: bool) -> None:
        """Write a checkpoint, point `last` (and `best`) to it, then delete what neither needs."""
        name = f"step-{progress.step:08d}"

        def fill(folder: Path) -> None:
            save_tensors(folder / "weights.safetensors", module.state_dict())
            save_tensors(folder / "optimizers.safetensors", _flatten(optimizers))
            write_json(folder / "state.json", asdict(progress))

        write_folder(self.folder / name, fill)
        if is_best:
            write_json(self.folder / "best.json", {"folder": name})
        write_json(self.folder / "last.json", {"folder": name})
        self._prune()

    def load(self, module: nn.Module, optimizers: list[Optimizer]) -> Progress:
        """Go back to the last checkpoint; a fresh start where there is none.

        Raises:
            CheckpointError: it is broken, or of another model or optimiser.
        """
        folder = self.pointed("last")
        if folder is None:
            return Progress()
        progress = _read_progress(folder)
        load_weights(module, folder / "weights.safetensors", error=CheckpointError)
        _restore(optimizers, load_tensors(folder / "optimizers.safetensors", error=CheckpointError), where=folder)
        return progress

    def progress(self) -> Progress:
        """Say where the last checkpoint stands."""
        folder = self.pointed("last")
        return Progress() if folder is None else _read_progress(folder)

    def load_best(self, module: nn.Module) -> Progress:
        """Fill a module with the weights of the best checkpoint; of the last where no validation was done yet.

        Returns:
            Where the stage stood then.

        Raises:
            CheckpointError: there is none, or it is broken or of another model.
        """
        folder = self.pointed("best") or self.pointed("last")
        if folder is None:
            raise CheckpointError(f"{self.folder}: no checkpoint; train this stage first")
        load_weights(module, folder / "weights.safetensors", error=CheckpointError)
        return _read_progress(folder)

    def pointed(self, which: str) -> Path | None:
        """Give the folder that `last` or `best` names; None if nothing was saved yet."""
        pointer = self.folder / f"{which}.json"
        if not pointer.is_file():
            return None
        return self.folder / str(load_json(pointer, error=CheckpointError).get("folder"))

    def _prune(self) -> None:
        kept = {self.pointed("last"), self.pointed("best")}
        for folder in self.folder.glob("step-" + 8 * "[0-9]"):
            step = int(folder.name.removeprefix("step-"))
            if folder not in kept and not (self.keep_every and step % self.keep_every == 0):
                shutil.rmtree(folder, ignore_errors=True)
        for left_by_a_kill in self.folder.glob(".step-*"):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)


def _read_progress(folder: Path) -> Progress:
    values = load_json(folder / "state.json", error=CheckpointError)
    try:
        return Progress(**values)
    except TypeError as error:
        raise CheckpointError(f"{folder / 'state.json'}: {error}; written by another version of blt") from None


def _flatten(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            for key, tensor in state.items():
                tensors[f"{number}.{index}.{key}"] = tensor
    return tensors


def _restore(optimizers: list[Optimizer], tensors: dict[str, Tensor], *, where: Path) -> None:
    states: list[dict[int, dict[str, Any]]] = [{} for _ in optimizers]
    for name, tensor in tensors.items():
        number, index, key = name.split(".", 2)
        if int(number) >= len(optimizers):
            raise CheckpointError(f"{where}: written with another optimiser; start in a fresh run folder")
        states[int(number)].setdefault(int(index), {})[key] = tensor
    for optimizer, state in zip(optimizers, states, strict=True):
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for place, values in state.items():
            shapes = [value.shape for value in values.values() if value.dim()]
            if place >= len(weights) or any(shape != weights[place].shape[: len(shape)] for shape in shapes):
                raise CheckpointError(f"{where}: written with another optimiser; start in a fresh run folder")
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
