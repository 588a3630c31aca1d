"""How far two computations of the same figures lie apart, and where the most."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from blt.shapes import Tensor

TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""What rounding may do when the same figures are computed in other shapes, by the precision of the weights."""


@dataclass(frozen=True)
class LawReport:
    """What became of one law on one model."""

    law: str
    """Its name."""
    held: bool
    """Whether every deviation stayed within the tolerance."""
    deviation: float
    """The largest one seen, relative to the largest figure compared (or to 1); infinite for what has no measure."""
    tolerance: float
    """The largest one allowed."""
    where: str
    """Where the largest was seen; empty when there was none at all."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, which knows no infinity: None."""
        deviation = self.deviation if math.isfinite(self.deviation) else None
        return {
            "law": self.law,
            "held": self.held,
            "deviation": deviation,
            "tolerance": self.tolerance,
            "where": self.where,
        }


class Witness:
    """Compares figures on behalf of one law, and remembers the worst."""

    def __init__(self, law: str, *, tolerance: float) -> None:
        self.law = law
        self.tolerance = tolerance
        self.worst = 0.0
        self.where = ""

    def compare(self, found: Tensor, expected: Tensor, what: str) -> None:
        """Compare figures `B T ...` of the same bytes; not a number is infinitely far from everything."""
        if not found.numel():
            return
        scale = torch.where(expected.isfinite(), expected, 0).double().abs().max().clamp_min(1)
        deviation = (found.double() - expected.double()).abs() / scale
        by_byte = deviation.nan_to_num(nan=math.inf).flatten(2).amax(2) if deviation.dim() > 2 else deviation
        self.note(by_byte, what)

    def note(self, by_byte: Tensor, what: str) -> None:
        """Remember the worst deviation `B T` if it is the worst so far."""
        by_byte = by_byte.double().nan_to_num(nan=math.inf)
        if not by_byte.numel() or float(by_byte.max()) <= self.worst:
            return
        row, byte = divmod(int(by_byte.argmax()), by_byte.shape[1])
        self.worst = float(by_byte[row, byte])
        self.where = f"{what}, after byte {byte}" + (f" of row {row}" if len(by_byte) > 1 else "")

    def forbid(self, broken: Tensor, what: str) -> None:
        """Note something that must not be at all, wherever `broken`, `B T`, is true."""
        self.note(torch.where(broken, math.inf, 0.0), what)

    def report(self) -> LawReport:
        """Whether the law held."""
        return LawReport(self.law, self.worst <= self.tolerance, self.worst, self.tolerance, self.where)
