"""The length of all gradients together, of dense and of sparse ones."""

from collections.abc import Iterable

import torch
from torch import nn

from blt.shapes import Float, Tensor


@torch.no_grad()
def clip_gradients(weights: Iterable[Tensor], *, max_norm: float) -> Float[Tensor, ""]:
    """Shorten the gradients, all by one factor, to a norm of at most `max_norm`; weights without one are left out.

    Returns:
        The norm before.
    """
    numbers = []
    for weight in weights:
        if weight.grad is not None and weight.grad.is_sparse:
            weight.grad = weight.grad.coalesce()  # each row once: entries of the same row add up
            numbers.append(weight.grad.values())
        elif weight.grad is not None:
            numbers.append(weight.grad)
    norm = nn.utils.get_total_norm(numbers)
    if not norm + 1e-6 <= max_norm:  # seldom: a pass over all gradients
        torch._foreach_mul_(numbers, max_norm / (norm + 1e-6))
    return norm
