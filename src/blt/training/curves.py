"""Curves of a run as a PNG."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MISSING = "curves.png needs matplotlib: pip install 'blt-llm[track]'; the figures are in metrics.jsonl all the same"


def can_draw() -> bool:
    """Whether matplotlib (extra `track`), which draws the curves, is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_curves(rows: Sequence[dict[str, Any]], path: Path, *, title: str) -> None:
    """Draw bits per byte against bytes seen, training and held-out; nothing without matplotlib."""
    if not can_draw():
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    training = _points(rows, "bits_per_byte")
    held_out = _points(rows, "validation_bits_per_byte")
    if not (training or held_out):
        return
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if training:
        axes.plot(*zip(*training, strict=True), linewidth=0.8, alpha=0.7, label="training")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), marker="o", label=f"held-out, {held_out[-1][1]:.3f} at the end")
    axes.set(title=title, xlabel="text seen (MB)", ylabel="bits per byte")
    lowest, highest = (choose(value for _, value in training + held_out) for choose in (min, max))
    if 0 < 2 * lowest < highest:  # the first steps would leave no room for the rest
        axes.set_ylim(0.95 * lowest, 2 * lowest)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")
    unfinished = path.with_name(f".{path.name}.unfinished.png")
    figure.savefig(unfinished, dpi=120)
    unfinished.replace(path)


def _points(rows: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(row["bytes"] / 1e6, row[name]) for row in rows if name in row]
