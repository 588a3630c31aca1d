"""The losses of optimiser steps, which stay on the device until somebody needs them."""

import math
from dataclasses import dataclass, replace

import torch

from blt.distributed import World
from blt.errors import TrainingError
from blt.shapes import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class StepLoss:
    """The loss of one optimiser step, not read yet."""

    nats: Float[Tensor, " N"]
    """Of this rank's targets, part by part, on the device."""
    num_targets: int
    """Bytes and ends of documents that were predicted, on all ranks; the loss is the mean over these."""
    num_bytes: int
    """Bytes alone, which bits per byte divides by."""


@dataclass(frozen=True, kw_only=True)
class LossSum:
    """Losses of some steps, added up over these, their parts and all ranks."""

    nats: float = 0.0
    num_bytes: int = 0
    norm: float = 0.0
    """Global norm of the last step's gradients."""


class Losses:
    """Collects the losses of steps, and waits for the device only when they are read."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._unread: list[tuple[int, StepLoss, Tensor]] = []
        self._sum: LossSum | None = None

    def add(self, loss: StepLoss, *, step: int, norm: Float[Tensor, ""]) -> None:
        """Add the loss of a step, counted from 1, and the global norm of its gradients."""
        self._unread.append((step, loss, norm))

    def read(self) -> None:
        """Wait for all losses since the last time, in one copy; all ranks must call this.

        Raises:
            TrainingError: one of them is not finite, or the norm of its gradients is not.
        """
        if not self._unread:
            return
        unread, self._unread = self._unread, []
        figures = torch.cat([torch.cat([loss.nats.float(), norm.float()[None]]) for _, loss, norm in unread]).tolist()
        own, norms = [], []
        for _, loss, _ in unread:
            count = len(loss.nats)
            own.append(sum(figures[:count]))
            norms.append(figures[count])
            figures = figures[count + 1 :]
        for (step, loss, _), nats, norm in zip(unread, self._world.sums(*own), norms, strict=True):
            if not (math.isfinite(nats) and math.isfinite(norm)):
                raise TrainingError(
                    f"step {step}: loss {nats / loss.num_targets:.4g}, gradient norm {norm:.4g}; "
                    f"the last checkpoint is as it was; start in another --out with a lower learning_rate"
                )
            so_far = self._sum or LossSum()
            num_bytes = so_far.num_bytes + loss.num_bytes
            self._sum = replace(so_far, nats=so_far.nats + nats, num_bytes=num_bytes, norm=norm)

    def take(self) -> LossSum | None:
        """Return the sum of what was read since the last time; None if that is nothing."""
        taken, self._sum = self._sum, None
        return taken
