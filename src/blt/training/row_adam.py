"""Adam for tables of which a batch reads few rows."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from blt.shapes import Tensor


class RowAdam(Optimizer):
    """Adam (Kingma and Ba 2015) that moves only the rows that have a gradient; every row counts its own steps.

    The moments of a row wait while no batch reads it, where dense Adam would let them fade and move the row on. A step
    costs what the batch's rows cost, however large the table. `torch.optim.SparseAdam` is lazy too, but corrects the
    bias of all rows by the number of steps so far, so that a row seen late for the first time hardly moves.

    Args:
        tables: or groups of them; their gradients are sparse, R × D with whole rows.
        lr: learning rate.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
    """

    def __init__(
        self, tables: Iterable[Any], *, lr: float, betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8
    ) -> None:
        super().__init__(tables, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 (no loss is evaluated again)
        """Move the rows that have a gradient."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._move(table, table.grad.coalesce(), group)

    def _move(self, table: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[table], group["betas"]
        if not state:
            state["exp_avg"] = torch.zeros_like(table)
            state["exp_avg_sq"] = torch.zeros_like(table)
            state["row_steps"] = table.new_zeros(len(table))
        rows, values = gradient.indices()[0], gradient.values()  # N, N D
        steps = state["row_steps"][rows] + 1
        first = state["exp_avg"][rows].lerp_(values, 1 - beta1)
        second = state["exp_avg_sq"][rows].mul_(beta2).addcmul_(values, values, value=1 - beta2)
        state["row_steps"][rows], state["exp_avg"][rows], state["exp_avg_sq"][rows] = steps, first, second
        root = (second / (1 - beta2**steps)[:, None]).sqrt_().add_(group["eps"])
        table.index_add_(0, rows, first / (1 - beta1**steps)[:, None] / root, alpha=-group["lr"])
