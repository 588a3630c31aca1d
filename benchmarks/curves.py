"""Draw the course of every arm in a record of training, and print where each ended as a table.

Held-out bits per byte stand against bytes, FLOPs and time.

    pip install '.[track]'
    python benchmarks/curves.py benchmarks/records/learning.json --out benchmarks/records/learning.svg

FLOPs are what the model needs (`blt plan`); time is the arm's own, on the record's device and threads, at even speed.
"""

import json
from pathlib import Path
from typing import Any

import click
import matplotlib
from arms import WINDOW, shape_of
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from blt.model.cost import cost_of

MEAN_PATCH_BYTES = 4.4


def arms_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Find whatever has a course."""
    found = {}
    for name, value in results.items():
        if isinstance(value, dict) and "course" in value:
            found[name] = value
        elif isinstance(value, dict):
            found |= arms_of(value)
    return found


@click.command()
@click.argument("record", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(record: Path, out: Path) -> None:
    """Draw one record."""
    read = json.loads(record.read_text(encoding="utf-8"))
    shape = shape_of(read["results"].get("model", "small"))
    matplotlib.rcParams["svg.fonttype"] = "none"
    figure = Figure(figsize=(15, 5), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(1, 3, sharey=True)
    print("| arm | MB seen | TFLOPs | seconds | held-out bits per byte |\n|---|---|---|---|---|")
    for name, arm in arms_of(read["results"]).items():
        window = arm.get("window", WINDOW)
        flops = cost_of(shape, mean_patch_bytes=MEAN_PATCH_BYTES, context_bytes=window).training_flops
        seen = [point["bytes"] for point in arm["course"]]
        bits = [point["validation_bits_per_byte"] for point in arm["course"]]
        for part, scale in zip(axes, (1e-6, flops * 1e-12, arm["seconds"] / arm["bytes_seen"]), strict=True):
            part.plot([count * scale for count in seen], bits, marker=".", label=f"{name}: {bits[-1]:.3f}")
        megabytes = arm["bytes_seen"] / 1e6
        print(f"| {name} | {megabytes:.1f} | {megabytes * flops * 1e-6:.0f} | {arm['seconds']:.0f} | {bits[-1]:.4f} |")
    for part, label in zip(axes, ("MB seen", "TFLOPs", f"seconds on {read['device']}"), strict=True):
        part.set_xlabel(label)
        part.grid(alpha=0.3)
    axes[0].set_ylabel("held-out bits per byte")
    axes[2].legend(fontsize="small")
    figure.suptitle(read["claim"])
    figure.savefig(out, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
