"""Curves of a run as a PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw_curves(rows: Sequence[dict[str, Any]], path: Path, *, title: str) -> bool:
    """Draw bits per byte against bytes seen: training and held-out.

    Returns:
        False without matplotlib (extra `track`), which draws them; the figures are in `metrics.jsonl` all the same.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    training = [(row["bytes"] / 1e6, row["bits_per_byte"]) for row in rows if "bits_per_byte" in row]
    held_out = [
        (row["bytes"] / 1e6, row["validation_bits_per_byte"]) for row in rows if "validation_bits_per_byte" in row
    ]
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if training:
        axes.plot(*zip(*training, strict=True), linewidth=0.8, alpha=0.7, label="training")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), marker="o", label=f"held-out, {held_out[-1][1]:.3f} at the end")
    axes.set(title=title, xlabel="text seen (MB)", ylabel="bits per byte")
    everything = [value for _, value in training + held_out]
    if everything and max(everything) > 2 * min(everything):
        axes.set_ylim(0.95 * min(everything), 2 * min(everything))
    axes.grid(alpha=0.3)
    axes.legend()
    unfinished = path.with_name(f".{path.name}.unfinished.png")
    figure.savefig(unfinished, dpi=120)
    unfinished.replace(path)
    return True
