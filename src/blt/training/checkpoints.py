"""Checkpoints of a training stage: everything that an exact resume needs, whole or absent, without pickle.

checkpoints/
step-00000500/   weights.safetensors, optimizers.safetensors, state.json
last.json        names the newest; written after its folder is whole
best.json        names the one with the lowest held-out bits per byte
"""

import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from blt.checkpoint import (
    FolderKind,
    load_json,
    load_tensors,
    load_weights,
    save_tensors,
    write_folder,
    write_json,
)
from blt.errors import CheckpointError, TrainingError
from blt.shapes import Tensor
from blt.training.optimizers import shapes_of_state
from blt.training.parts import PartsConfig, freeze

MAX_COUNT = 2**63
"""Where a count of steps or bytes ends."""

WEIGHTS, MOMENTS = "weights.safetensors", "optimizers.safetensors"
"""The files of a checkpoint that hold tensors."""

CHECKPOINT_FOLDER = FolderKind(
    noun="checkpoint",
    files=re.compile(r"(weights|optimizers)\.safetensors|state\.json"),
    is_own=lambda folder: (folder / "state.json").is_file(),
    error=CheckpointError,
)
"""What `Checkpoints.save` writes, and may replace."""


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
        """Whether a held-out figure is the lowest so far."""
        return math.isfinite(bits_per_byte) and (
            self.best_bits_per_byte is None or bits_per_byte < self.best_bits_per_byte
        )


_NAME = re.compile(r"step-\d{8,19}", re.ASCII)


class Checkpoints:
    """The checkpoints of one stage."""

    def __init__(self, folder: Path, *, keep_every: int | None = None) -> None:
        self.folder = folder
        self.keep_every = keep_every

    def save(self, module: nn.Module, optimizers: list[Optimizer], progress: Progress, *, is_best: bool) -> None:
        """Write a checkpoint, point `last` (and `best`) to it, then delete what neither needs.

        Raises:
            TrainingError: a weight or a moment is not finite; nothing has been written or deleted.
        """
        weights, moments = module.state_dict(), moments_of(optimizers)
        require_finite(weights | moments, step=progress.step)

        def fill(folder: Path) -> None:
            save_tensors(folder / WEIGHTS, weights)
            save_tensors(folder / MOMENTS, moments)

        self.write(fill, progress, is_best=is_best)

    def write(self, fill: Callable[[Path], None], progress: Progress, *, is_best: bool) -> None:
        """Write a checkpoint whose tensors `fill` writes; see `save`."""

        def fill_and_end(folder: Path) -> None:
            fill(folder)
            write_json(folder / "state.json", asdict(progress))

        folder = self.folder_of(progress)
        write_folder(folder, fill_and_end, kind=CHECKPOINT_FOLDER)
        if is_best:
            write_json(self.folder / "best.json", {"folder": folder.name})
        write_json(self.folder / "last.json", {"folder": folder.name})
        self.prune()

    def folder_of(self, progress: Progress) -> Path:
        """Return where the checkpoint of a step lies."""
        return self.folder / f"step-{progress.step:08d}"

    def load(self, module: nn.Module, optimizers: list[Optimizer], *, parts: PartsConfig | None = None) -> Progress:
        """Go back to the last checkpoint; a fresh start where there is none.

        Args:
            module: to be filled with its weights.
            optimizers: to be filled with their moments.
            parts: which parts were frozen so far; these alone have no moments.

        Raises:
            CheckpointError: it is broken, or of another model or optimiser.
        """

        def fill(folder: Path) -> None:
            load_weights(module, folder / WEIGHTS, error=CheckpointError)
            moments = load_tensors(folder / MOMENTS, error=CheckpointError)
            for tensors in (module.state_dict(), moments):
                if name := first_not_finite(tensors):
                    raise not_finite(folder, name)
            _restore(optimizers, moments, where=folder / MOMENTS)

        return self.go_back(fill, module, parts=parts)

    def go_back(self, fill: Callable[[Path], None], module: nn.Module, *, parts: PartsConfig | None = None) -> Progress:
        """Go back to the last checkpoint, whose tensors `fill` reads; a fresh start where there is none."""
        folder = self.pointed("last")
        if folder is None:
            return Progress()
        progress = _read_progress(folder)
        freeze(module, parts, step=progress.step - 1)  # as in the last step that was done
        fill(folder)
        return progress

    def progress(self) -> Progress:
        """Return where the last checkpoint stands."""
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
        load_weights(module, folder / WEIGHTS, error=CheckpointError)
        return _read_progress(folder)

    def pointed(self, which: str) -> Path | None:
        """Return the folder that `last` or `best` names; None if nothing was saved yet.

        Raises:
            CheckpointError: the pointer is damaged, or names what is no checkpoint of this stage.
        """
        pointer = self.folder / f"{which}.json"
        if not pointer.is_file():
            return None
        name = load_json(pointer, error=CheckpointError).get("folder")
        if not (isinstance(name, str) and _NAME.fullmatch(name) and (self.folder / name).is_dir()):
            raise CheckpointError(
                f"{pointer}: names {name!r}, which is no checkpoint beside it; name one that is, or start in a fresh "
                "run folder"
            )
        return self.folder / name

    def prune(self) -> None:
        """Delete the checkpoints that neither `last` nor `best` nor `keep_every` needs, and what a kill left."""
        kept = {self.pointed("last"), self.pointed("best")}
        for folder in self.folder.glob("step-*"):
            if not _NAME.fullmatch(folder.name):
                continue
            step = int(folder.name.removeprefix("step-"))
            if folder not in kept and not (self.keep_every and step % self.keep_every == 0):
                shutil.rmtree(folder, ignore_errors=True)
        for left_by_a_kill in self.folder.glob(".step-*"):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)


def require_finite(tensors: Mapping[str, Tensor], *, step: int) -> None:
    """Refuse weights or moments that are not finite.

    Raises:
        TrainingError: one of them is not.
    """
    if name := first_not_finite(tensors):
        raise not_finite_in_training(name, step=step)


def not_finite_in_training(name: str, *, step: int) -> TrainingError:
    """Return the error of a weight or a moment that has become NaN or infinite."""
    return TrainingError(
        f"step {step}: {name} is not finite (NaN or infinite); the last checkpoint is as it was; start in another "
        "--out with a lower learning_rate"
    )


def not_finite(folder: Path, name: str) -> CheckpointError:
    """Return the error of a checkpoint that holds a NaN or an infinity."""
    return CheckpointError(f"{folder}: {name} is not finite (NaN or infinite); start in a fresh run folder")


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with a NaN or an infinity in it; None if all are finite."""
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() and tensor.numel()):
            continue
        # The largest magnitude is NaN or infinite exactly if a value is: one pass, and no tensor of booleans.
        if not math.isfinite(torch.linalg.vector_norm(tensor.detach(), math.inf).item()):
            return name
    return None


def _read_progress(folder: Path) -> Progress:
    path = folder / "state.json"
    values = load_json(path, error=CheckpointError)
    names = {field.name for field in fields(Progress)}
    if odd := sorted(names ^ values.keys()):
        what = f"lacks {odd[0]}" if odd[0] in names else f"unexpected {odd[0]!r}"
        raise CheckpointError(f"{path}: {what}; damaged, or written by another version of blt")
    counts, best = [values["step"], values["num_bytes"]], values["best_bits_per_byte"]
    is_sound = all(type(count) is int and 0 <= count < MAX_COUNT for count in counts)
    is_sound &= _is_amount(values["seconds"]) and (best is None or _is_amount(best))
    is_sound &= type(values["is_finished"]) is bool and folder.name == f"step-{counts[0]:0>8}"
    if not is_sound:
        raise CheckpointError(f"{path}: is damaged ({values}); start in a fresh run folder")
    return Progress(**values)


def _is_amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def moments_of(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """Return what optimisers keep, by number of the optimiser, number of the weight in it, and name."""
    tensors: dict[str, Tensor] = {}
    for number, index, optimizer, weight in numbered_weights(optimizers):
        for key, tensor in optimizer.state.get(weight, {}).items():
            tensors[f"{number}.{index}.{key}"] = tensor
    return tensors


def numbered_weights(optimizers: list[Optimizer]) -> Iterator[tuple[int, int, Optimizer, Tensor]]:
    """List all weights, each with its optimiser, and the numbers of both."""
    for number, optimizer in enumerate(optimizers):
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for index, weight in enumerate(weights):
            yield number, index, optimizer, weight


def check_moments(
    found: Mapping[str, tuple[int, ...]],
    optimizers: list[Optimizer],
    *,
    where: Path,
    shape_of: Callable[[Tensor], tuple[int, ...]] = lambda weight: tuple(weight.shape),
) -> None:
    """Require that every weight that has a gradient has its moments, and that nothing else is there.

    Args:
        found: shapes by name.
        optimizers: what they are for.
        where: the file.
        shape_of: returns the whole shape of a weight.

    Raises:
        CheckpointError: that is not so.
    """
    wanted: dict[str, tuple[int, ...]] = {}
    optional: set[str] = set()
    for number, index, optimizer, weight in numbered_weights(optimizers):
        of_weight = shapes_of_state(optimizer, shape_of(weight))
        shapes = {f"{number}.{index}.{key}": shape for key, shape in of_weight.items()}
        wanted |= shapes
        if not weight.requires_grad and not shapes.keys() & found.keys():
            optional |= shapes.keys()
    surplus, missing = sorted(found.keys() - wanted.keys()), sorted(wanted.keys() - found.keys() - optional)
    # A count of steps has no dimension, or one of size 1 where several ranks have written it.
    odd = [name for name, shape in found.items() if name in wanted and (shape or (1,)) != (wanted[name] or (1,))]
    if surplus or missing or odd:
        what = (
            f"holds {surplus[0]}" if surplus else f"lacks {missing[0]}" if missing else f"has another shape of {odd[0]}"
        )
        raise CheckpointError(
            f"{where}: {what}; damaged, or written with another optimiser; start in a fresh run folder"
        )


def _restore(optimizers: list[Optimizer], tensors: dict[str, Tensor], *, where: Path) -> None:
    """Fill the optimisers; every weight that has a gradient must have its moments, and nothing else may be there."""
    check_moments({name: tuple(tensor.shape) for name, tensor in tensors.items()}, optimizers, where=where)
    states: list[dict[int, dict[str, Any]]] = [{} for _ in optimizers]
    for name, tensor in tensors.items():
        place, index_of_weight, key = name.split(".", 2)
        states[int(place)].setdefault(int(index_of_weight), {})[key] = tensor.view(()) if key == "step" else tensor
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
