"""Figures in columns, with their intervals."""

import math

from blt.evaluation.bootstrap import Interval


def in_columns(heads: list[str], lines: list[list[str]]) -> list[str]:
    """Return the lines of a table whose cells stand below their heads."""
    table = [heads, *lines]
    widths = [max(len(line[column]) for line in table) for column in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def cell(figure: Interval, *, signed: bool = False) -> str:
    """Write a figure with its interval."""
    form = "+.3f" if signed else ".3f"
    interval = "" if math.isnan(figure.low) else f" ({figure.low:{form}} to {figure.high:{form}})"
    return f"{figure.value:{form}}{interval}"
