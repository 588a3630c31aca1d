"""Learning rate schedules, as a factor of the peak rate."""

import math
from dataclasses import dataclass

from blt.configuration import check, check_range, variant


@variant("cosine")
@dataclass(frozen=True, kw_only=True)
class CosineConfig:
    """Linear warm-up, then half a cosine down."""

    warmup_steps: int = 300
    """Optimiser steps until the peak."""
    final_factor: float = 0.0
    """Share of the peak at the end."""

    def __post_init__(self) -> None:
        _check(self.warmup_steps, self.final_factor)

    def factor(self, step: int, *, num_steps: int) -> float:
        """Return the factor for step `step` of `num_steps`, from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, num_steps - self.warmup_steps)
        return self.final_factor + (1 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@variant("wsd")
@dataclass(frozen=True, kw_only=True)
class WSDConfig:
    """Warm-up, stable, then a linear decay; the number of steps may still be changed while stable."""

    warmup_steps: int = 100
    """Optimiser steps until the peak."""
    decay_fraction: float = 0.4
    """Share of all steps in which the rate falls."""
    final_factor: float = 0.0
    """Share of the peak at the end."""

    def __post_init__(self) -> None:
        _check(self.warmup_steps, self.final_factor)
        check(0 < self.decay_fraction <= 1, f"decay_fraction: {self.decay_fraction}; above 0, at most 1")

    def factor(self, step: int, *, num_steps: int) -> float:
        """Return the factor for step `step` of `num_steps`, from 0."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        left = (num_steps - step) / max(1.0, self.decay_fraction * num_steps)
        return warm * (self.final_factor + (1 - self.final_factor) * min(1.0, left))


ScheduleConfig = CosineConfig | WSDConfig


def _check(warmup_steps: int, final_factor: float) -> None:
    check_range("warmup_steps", warmup_steps, 0)
    check(0 <= final_factor <= 1, f"final_factor: {final_factor}; from 0 to 1")
