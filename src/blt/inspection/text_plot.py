"""Patch lengths and entropies of texts as a picture."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from blt.inspection.patch_view import PatchView, describe_rule

MAX_POINTS = 1200
"""Points of a curve along a text; where there are more bytes, each stands for the highest of several."""
NUM_BINS = 60


def draw_texts(views: Mapping[str, PatchView]) -> Any:
    """Return a matplotlib figure: how long patches are and how high entropies; of one text, also the curve along it.

    Args:
        views: at least one text in patches, by its name.
    """
    from matplotlib.figure import Figure

    has_entropies = any(view.entropies for view in views.values())
    along = next(iter(views.values())) if len(views) == 1 and has_entropies else None
    figure = Figure(figsize=(10, 7 if along else 4), layout="constrained")
    rows = figure.add_gridspec(2 if along else 1, 2 if has_entropies else 1)
    _draw_lengths(figure.add_subplot(rows[0, 0]), views)
    if has_entropies:
        _draw_entropies(figure.add_subplot(rows[0, 1]), views)
    if along:
        _draw_curve(figure.add_subplot(rows[1, :]), along)
    figure.suptitle(describe_rule(next(iter(views.values())).rule), fontsize=10)
    return figure


def _draw_lengths(axes: Any, views: Mapping[str, PatchView]) -> None:
    """Draw which share of patches has which length; the longest hundredth is left out where it is far off."""
    all_lengths = {name: np.array([len(patch.data) for patch in view.patches]) for name, view in views.items()}
    longest = max(int(np.quantile(lengths, 0.99, method="higher")) for lengths in all_lengths.values())
    for name, lengths in all_lengths.items():
        shares = np.bincount(lengths, minlength=longest + 1)[: longest + 1] / len(lengths)
        label = f"{name}: {len(lengths):,} patches, mean {lengths.mean():.2f}"
        axes.stairs(shares[1:], np.arange(longest + 1) + 0.5, fill=len(views) == 1, alpha=0.8, label=label)
    axes.set(xlabel="bytes per patch", ylabel="share of patches")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize=8)


def _draw_entropies(axes: Any, views: Mapping[str, PatchView]) -> None:
    """Draw how entropies are distributed over bytes, and the threshold where the rule compares them with one."""
    from matplotlib.ticker import NullFormatter

    highest = max(max(view.entropies, default=0.0) for view in views.values())
    edges = np.linspace(0, max(highest, 1e-3), NUM_BINS + 1)
    for name, view in views.items():
        if view.entropies:
            counts, _ = np.histogram(view.entropies, edges)
            label = f"{name}: mean {np.mean(view.entropies):.2f} nats"
            axes.stairs(counts / len(view.entropies), edges, fill=len(views) == 1, alpha=0.8, label=label)
    _draw_threshold(axes.axvline, next(iter(views.values())))
    axes.set(xlabel="entropy of the next byte (nats)", ylabel="share of bytes", yscale="log")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize=8)


def _draw_curve(axes: Any, view: PatchView) -> None:
    """Draw the entropy along a text."""
    values = np.array(view.entropies)
    step = -(-len(values) // MAX_POINTS)
    padded = np.append(values, np.full(-len(values) % step, -np.inf)).reshape(-1, step)
    axes.plot(np.arange(len(padded)) * step, padded.max(1), linewidth=0.9, color="C1")
    _draw_threshold(axes.axhline, view)
    says = f"byte (each point is the highest of {step})" if step > 1 else "byte"
    axes.set(xlabel=says, ylabel="entropy of the next byte (nats)", xlim=(0, max(1, len(values) - 1)))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def _draw_threshold(draw: Any, view: PatchView) -> None:
    if view.threshold is not None and str(view.rule["type"]) in ("entropy", "entropy-and-rise"):
        draw(view.threshold, linestyle="--", linewidth=1, color="C3", label=f"θ = {view.threshold:.2f}")
