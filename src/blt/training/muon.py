"""Muon (Jordan et al. 2024): momentum whose singular values are brought near 1, for hidden matrices."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from blt.ops.native.products import multiplies, muon_step
from blt.shapes import Float, Tensor
from blt.training.precision import has_fast_bfloat16

COEFFICIENTS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    (1.875, -1.25, 0.375),
)
"""Of each iteration's odd polynomial, made for five, the last one again for more: Polar Express (Amsel et al. 2025,
arXiv 2505.16932) with the margin of 2% that bfloat16 needs, as in modded-nanogpt."""


class Muon(Optimizer):
    """Moves each matrix by its orthogonalised Nesterov momentum.

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
        """Move the matrices that have gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)

    def _move(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[weight], group["momentum"]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average, rate = state["momentum_buffer"], group["lr"] * max(1, weight.shape[0] / weight.shape[1]) ** 0.5
        kept, polynomials = 1 - group["lr"] * group["weight_decay"], _polynomials(group["num_iterations"])
        if has_fast_bfloat16(weight.device) and multiplies(weight, gradient, average):
            coefficients = torch.tensor(polynomials, dtype=torch.float32, device="cpu")
            muon_step(weight, gradient, average, momentum=momentum, rate=rate, kept=kept, coefficients=coefficients)
            return
        mixture = gradient.lerp(average.lerp_(gradient, 1 - momentum), momentum)
        weight.mul_(kept)
        weight.add_(orthogonalise(mixture, num_iterations=group["num_iterations"]), alpha=-rate)


def orthogonalise(matrix: Float[Tensor, "R C"], *, num_iterations: int) -> Float[Tensor, "R C"]:
    """Bring all singular values near 1: as U Vᵀ, if the matrix is U S Vᵀ.

    Args:
        matrix: what to orthogonalise; products are of bfloat16 where they are fast.
        num_iterations: 5 bring to 0.85 … 1.14 what is above a thousandth of the matrix's norm.
    """
    flat = matrix.to(torch.bfloat16 if has_fast_bfloat16(matrix.device) else matrix.dtype)
    is_tall = matrix.shape[0] > matrix.shape[1]
    flat = _turned(flat) if is_tall else flat
    flat = flat / (1.02 * flat.norm().clamp_min(1e-7))
    for a, b, c in _polynomials(num_iterations):
        gram = flat @ flat.T
        flat = torch.addmm(flat, torch.addmm(gram, gram, gram, beta=b, alpha=c), flat, beta=a)
    return (_turned(flat) if is_tall else flat).to(matrix.dtype)


def _polynomials(num_iterations: int) -> list[tuple[float, float, float]]:
    return [COEFFICIENTS[min(index, len(COEFFICIENTS) - 1)] for index in range(num_iterations)]


def _turned(matrix: Tensor) -> Tensor:
    return matrix.T.contiguous()
