"""Muon (Jordan et al. 2024): momentum whose singular values are brought near 1, for hidden matrices."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from blt.ops import muon_step
from blt.shapes import Tensor


class Muon(Optimizer):
    """Updates each matrix by its orthogonalised Nesterov momentum.

    `torch.optim.Muon` does the same by other polynomials, always in bfloat16, and adds a transposed matrix where rows
    outnumber columns, which is slow on a CPU.

    Args:
        params: matrices, or groups of them.
        lr: learning rate; those taller than wide get it times √(rows / columns).
        momentum: its decay.
        weight_decay: decoupled.
        num_iterations: of orthogonalisation.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        num_iterations: int = 5,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "num_iterations": num_iterations}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 (no loss is evaluated again)
        """Update the matrices that have gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)

    def _move(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        # Orthogonalising gives every update the same spectral norm, whatever the shape. The factor √(rows / columns)
        # keeps the change of the layer's outputs alike for matrices that are taller than wide. Weight decay is
        # decoupled (as in AdamW): it scales the weight by `kept` and does not enter the momentum.
        state, momentum = self.state[weight], group["momentum"]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average, rate = state["momentum_buffer"], group["lr"] * max(1, weight.shape[0] / weight.shape[1]) ** 0.5
        muon_step(
            weight,
            gradient,
            average,
            momentum=momentum,
            rate=rate,
            kept=1 - group["lr"] * group["weight_decay"],
            num_iterations=group["num_iterations"],
        )
