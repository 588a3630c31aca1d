"""The step of Muon (Jordan et al. 2024): momentum whose singular values are brought near 1."""

from typing import Any

import torch

from blt.ops.linear import fits_tiles
from blt.ops.native.operators import call, check_equal, define
from blt.ops.precision import fast_matmul_dtype
from blt.ops.registry import operator
from blt.shapes import Float, Tensor

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


def orthogonalise(matrix: Float[Tensor, "R C"], *, num_iterations: int) -> Float[Tensor, "R C"]:
    """Bring all singular values near 1: as U Vᵀ, if the matrix is U S Vᵀ.

    Args:
        matrix: what to orthogonalise; products are of bfloat16 where they are fast.
        num_iterations: 5 bring to 0.85 … 1.14 what is above a thousandth of the matrix's norm.
    """
    dtype = torch.bfloat16 if fast_matmul_dtype(matrix.device) == torch.bfloat16 else matrix.dtype
    flat = matrix.to(dtype)
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


def _kernel(
    weight: Tensor,
    gradient: Tensor,
    average: Tensor,
    momentum: float,
    rate: float,
    kept: float,
    coefficients: Tensor,
) -> None:
    check_equal("muon_step", weight.shape, gradient.shape, average.shape)
    sizes = (*weight.shape, momentum, rate, kept)
    call("muon_step", weight, gradient, average, *sizes, coefficients, len(coefficients))


_MUON = define(
    "muon_step(Tensor(a!) weight, Tensor gradient, Tensor(b!) average, float momentum, float rate, float kept, "
    "Tensor coefficients) -> ()",
    _kernel,
    fake=lambda *_: None,
)


def _native(
    weight: Tensor,
    gradient: Tensor,
    average: Tensor,
    *,
    momentum: float,
    rate: float,
    kept: float,
    num_iterations: int,
) -> None:
    coefficients = torch.tensor(_polynomials(num_iterations), dtype=torch.float32, device="cpu")
    _MUON(weight, gradient, average, momentum, rate, kept, coefficients)


def _serves(weight: Tensor, gradient: Tensor, average: Tensor, **_: Any) -> bool:
    return fast_matmul_dtype(weight.device) == torch.bfloat16 and fits_tiles(weight, gradient, average)


@operator(native=_native, serves=_serves)
def muon_step(
    weight: Float[Tensor, "R C"],
    gradient: Float[Tensor, "R C"],
    average: Float[Tensor, "R C"],
    *,
    momentum: float,
    rate: float,
    kept: float,
    num_iterations: int,
) -> None:
    """Run a Muon step in place: update the momentum, orthogonalise it, and update the weight.

    Args:
        weight: becomes `kept` × weight − `rate` × the orthogonalised update.
        gradient: the gradient of this optimiser step.
        average: momentum buffer, the running average of the gradients.
        momentum: decay of the average, and its share of the update (Nesterov).
        rate: learning rate.
        kept: factor that weight decay leaves.
        num_iterations: of orthogonalisation (Newton-Schulz).
    """
    mixture = gradient.lerp(average.lerp_(gradient, 1 - momentum), momentum)
    weight.mul_(kept)
    weight.add_(orthogonalise(mixture, num_iterations=num_iterations), alpha=-rate)
