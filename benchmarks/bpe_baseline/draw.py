"""The record's curves: bits per byte against training FLOPs for each text, and against ids per patch by rule."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from .sides import SIDES

NAMES = {"blt": "BLT", "bpe": "BPE", "flat": "flat bytes", "stories": "TinyStories", "python": "Python source"}
NAMES |= {"languages": "528 languages", "space": "spaces", "entropy-rise": "rise of entropy", "static": "every n bytes"}
MARKS = {"blt": "o-", "bpe": "s--", "flat": "^:", "entropy": "o-", "entropy-rise": "s--", "static": "^:", "space": "D"}


def draw(results: dict[str, Any], out: Path) -> None:
    """Draw what a record holds, as SVG."""
    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["svg.hashsalt"] = "equal-fight"
    rows = results["equal_training_flops"]
    corpora = list(dict.fromkeys(row["corpus"] for row in rows))
    ruled = [row for row in results["patch_rules"] if "bits_per_byte" in row]
    figure = Figure(figsize=(4.5 * (len(corpora) + bool(ruled)), 4.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(1, len(corpora) + bool(ruled), squeeze=False)[0]
    for part, corpus in zip(axes, corpora, strict=False):
        for side in SIDES:
            _line(part, [row for row in rows if (row["corpus"], row["side"]) == (corpus, side)], side, "training_flops")
        part.set_xscale("log")
        part.set_xlabel("training FLOPs")
        part.set_title(NAMES[corpus])
    if ruled:
        least = min(row["budget"] for row in ruled)
        for rule in dict.fromkeys(row["rule"] for row in ruled):
            some = [row for row in ruled if row["rule"] == rule and row["budget"] == least]
            _line(axes[-1], sorted(some, key=lambda row: row["ids_per_patch"]), rule, "ids_per_patch")
        axes[-1].set_xlabel("ids per patch")
        axes[-1].set_title(f"patch rules, TinyStories, {least:.0e} FLOPs")
    for part in axes:
        part.grid(alpha=0.3)
        part.legend(fontsize="small")
    axes[0].set_ylabel("held-out bits per byte")
    figure.savefig(out, format="svg", metadata={"Date": None})


def _line(part: Any, rows: list[dict[str, Any]], name: str, along: str) -> None:
    """Draw one curve, with the intervals over documents; none where there is a single document."""
    if rows:
        figures = [row["bits_per_byte"] for row in rows]
        bits = [each["value"] for each in figures]
        below = [0.0 if each["low"] is None else each["value"] - each["low"] for each in figures]
        above = [0.0 if each["high"] is None else each["high"] - each["value"] for each in figures]
        part.errorbar(
            [row[along] for row in rows],
            bits,
            yerr=[below, above],
            fmt=MARKS[name],
            capsize=3,
            label=NAMES.get(name, name),
        )
