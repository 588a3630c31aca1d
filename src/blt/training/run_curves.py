"""Curves of several runs in one picture: bits per byte against bytes, FLOPs or time."""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from blt.checkpoint import load_json
from blt.configuration import check, from_dict, to_dict
from blt.errors import CheckpointError, ConfigurationError
from blt.lm.folder import read_config
from blt.model import BLTConfig
from blt.model.cost import cost_of, cost_of_entropy_model
from blt.training.monitor import read_metrics
from blt.training.recipe import PatchingStage, Recipe

Stage = Literal["blt", "entropy"]
Axis = Literal["bytes", "flops", "time"]
AXES: dict[Axis, str] = {"bytes": "text seen (MB)", "flops": "training FLOPs", "time": "time (h)"}
"""What a curve may run along, and its label."""


@dataclass(frozen=True, kw_only=True)
class RunCurve:
    """What one run has measured, along one axis."""

    name: str
    """What the picture calls it."""
    training: tuple[tuple[float, float], ...]
    """Place on the axis and bits per byte of training."""
    held_out: tuple[tuple[float, float], ...]
    """The same of held-out text."""


def read_curve(
    folder: Path, *, stage: Stage, along: Axis, name: str | None = None, mean_patch_bytes: float | None = None
) -> RunCurve:
    """Read a run's curve.

    Args:
        folder: the run folder.
        stage: of the run.
        along: the axis.
        name: what to call it; the folder's name if not given.
        mean_patch_bytes: for FLOPs; that of the recipe if not given.

    Raises:
        ConfigurationError: there is no such stage, it has measured nothing, or its FLOPs cannot be told.
        CheckpointError: metrics or recipe are damaged.
    """
    path = folder / stage / "metrics.jsonl"
    check(path.is_file(), f"{folder}: holds no metrics of a stage {stage!r}; give the run folder of `blt train`")
    rows = read_metrics(path)
    flops = training_flops(folder, stage=stage, mean_patch_bytes=mean_patch_bytes) if along == "flops" else 0.0
    timed = [(row["step"], _figure(row, "seconds", path)) for row in rows if "seconds" in row]

    def place(row: dict[str, Any]) -> float:
        if along == "time":  # validations tell no time; they belong to the step before
            at = bisect.bisect_right(timed, (row["step"], math.inf)) - 1
            return timed[at][1] / 3600 if at >= 0 else 0.0
        num_bytes = _figure(row, "bytes", path)
        return num_bytes * flops if along == "flops" else num_bytes / 1e6

    curve = RunCurve(
        name=folder.resolve().name if name is None else name,
        training=tuple((place(row), _figure(row, "bits_per_byte", path)) for row in rows if "bits_per_byte" in row),
        held_out=tuple(
            (place(row), _figure(row, "validation_bits_per_byte", path))
            for row in rows
            if "validation_bits_per_byte" in row
        ),
    )
    check(bool(curve.training or curve.held_out), f"{path}: holds no figures yet; wait for the first")
    return curve


def training_flops(folder: Path, *, stage: Stage, mean_patch_bytes: float | None = None) -> float:
    """Return the FLOPs per byte that a stage of a run costs, forward and backward.

    Args:
        folder: the run folder.
        stage: of the run.
        mean_patch_bytes: bytes per patch; by default what the recipe asks for.

    Raises:
        ConfigurationError: the shape or the mean patch length is not known.
        CheckpointError: the recipe is damaged.
    """
    path = folder / "recipe.json"
    check(path.is_file(), f"{path}: no such file, and FLOPs follow from the recipe; draw along bytes or time")
    try:
        recipe: Recipe = from_dict(Recipe, load_json(path, error=CheckpointError))
    except ConfigurationError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if stage == "entropy":
        check(recipe.entropy is not None, f"{folder}: trains no entropy model")
        assert recipe.entropy is not None
        loop = recipe.entropy.loop
        return 3 * cost_of_entropy_model(recipe.entropy.model, context_bytes=loop.sequence_length).flops
    mean = mean_patch_bytes or _mean_patch(recipe.patching)
    if mean is None:
        raise ConfigurationError(f"{folder}: its recipe asks for no mean patch length; give one with --mean-patch")
    shape = _shape(recipe, folder)
    return cost_of(shape, mean_patch_bytes=mean, context_bytes=recipe.blt.loop.sequence_length).training_flops


def _shape(recipe: Recipe, folder: Path) -> BLTConfig:
    if recipe.blt.model is not None:
        return recipe.blt.model
    finished = folder / "model"
    check(finished.is_dir(), f"{folder}: the shape is that of start_from; draw along FLOPs once the run has ended")
    return read_config(finished).blt


def _mean_patch(patching: PatchingStage | None) -> float | None:
    """Return the bytes per patch that a recipe asks for; None where only its text tells."""
    if patching is None:
        return None
    if patching.rule.needs_entropies:
        return patching.mean_patch_bytes
    rule = to_dict(patching.rule)
    lengths = {"byte": 1, "static": rule.get("length")}
    length = lengths.get(str(rule["type"]))
    return None if length is None else float(min(length, patching.rule.max_length or length))


def _figure(row: dict[str, Any], name: str, path: Path) -> float:
    """Return a figure of a row of metrics.

    Raises:
        CheckpointError: it is no finite number.
    """
    value = row.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise CheckpointError(f"{path}: step {row['step']}: {name} is {value!r}; delete that line to go on without it")
    return float(value)


def draw_runs(curves: Sequence[RunCurve], *, along: Axis) -> Any:
    """Return a matplotlib figure with all curves: training as a thin line, held-out figures as points.

    Args:
        curves: one per run.
        along: the axis that they were read along.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for number, curve in enumerate(curves):
        colour, label = f"C{number % 10}", label_of(curve.name)
        if curve.training:
            label_here = None if curve.held_out else f"{label}, training"
            axes.plot(*zip(*curve.training, strict=True), color=colour, linewidth=0.8, alpha=0.6, label=label_here)
        if curve.held_out:
            last = f"{label}, held-out {curve.held_out[-1][1]:.3f} at the end"
            axes.plot(*zip(*curve.held_out, strict=True), color=colour, marker="o", markersize=4, label=last)
    axes.set(xlabel=AXES[along], ylabel="bits per byte")
    values = [value for curve in curves for _, value in curve.training + curve.held_out]
    if 0 < 2 * min(values) < max(values):  # the first steps would leave no room for the rest
        axes.set_ylim(0.95 * min(values), 2 * min(values))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")
    return figure


def label_of(name: str) -> str:
    """Return a name as matplotlib shows it as it is: no formula, nothing that no font has, and never left out."""
    shown = name.encode("utf-8", "replace").decode().replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
