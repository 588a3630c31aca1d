"""Muon over divided weights: each matrix has an owner, which gathers the gradient, steps, and hands the update out.

Orthogonalising needs the whole matrix. Doing it on every rank would cost each the whole work and the whole momentum;
owners share out both. What is communicated is as much as a reduce-scatter and an all-gather of the matrices.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from blt.distributed import SHARD
from blt.ops import muon_step
from blt.shapes import Tensor
from blt.training.muon import Muon


class ShardedMuon(Muon):
    """`Muon` for DTensors whose rows are divided over the ranks of a mesh's dimension `shard`.

    `state` has the momentum of the matrices that this rank owns, whole. Which these are depends on the shapes and on
    the number of ranks alone.
    """

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        self.owners: dict[Tensor, int] = {}
        matrices = [weight for group in self.param_groups for weight in group["params"]]
        self._group = matrices[0].device_mesh.get_group(SHARD)
        work = [0] * dist.get_world_size(self._group)
        for weight in sorted(matrices, key=_work, reverse=True):
            self.owners[weight] = work.index(min(work))
            work[self.owners[weight]] += _work(weight)

    def owns(self, weight: Tensor) -> bool:
        """Whether this rank keeps the momentum of a matrix."""
        return self.owners[weight] == dist.get_rank(self._group)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 (no loss is evaluated again)
        """Update the matrices that have gradients, in rounds in which each rank has one of its own at most."""
        waiting: list[list[tuple[DTensor, dict[str, Any]]]] = [[] for _ in range(dist.get_world_size(self._group))]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    waiting[self.owners[weight]].append((weight, group))
        for number in range(max(map(len, waiting), default=0)):
            self._run_round([some[number] if number < len(some) else None for some in waiting])

    def _run_round(self, taken: list[tuple[DTensor, dict[str, Any]] | None]) -> None:
        """Step one matrix of each owner."""
        rank = dist.get_rank(self._group)
        sent = [None if one is None else _local(one[0].grad) for one in taken]
        mine = taken[rank]
        rows = [] if mine is None else _rows(mine[0].shape[0], len(taken))
        width = 0 if mine is None else mine[0].shape[1]
        like = next(part for part in sent if part is not None)
        gathered = like.new_empty(sum(rows), width)
        sizes = [count * width for count in rows] or [0] * len(taken)
        local_sizes = [0 if part is None else part.numel() for part in sent]
        flat = torch.cat([part.flatten() for part in sent if part is not None])
        dist.all_to_all_single(gathered.view(-1), flat, sizes, local_sizes, group=self._group)
        update = gathered if mine is None else self._update(mine[0], gathered, mine[1])
        dist.all_to_all_single(flat, update.view(-1), local_sizes, sizes, group=self._group)
        for one, part in zip(taken, torch.split(flat, local_sizes), strict=True):
            if one is not None:
                weight, group = _local(one[0]), one[1]
                weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(part.view_as(weight))

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        """Return what is added to a whole matrix, and update its momentum."""
        state, update = self.state[weight], torch.zeros_like(gradient)
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        muon_step(
            update,
            gradient,
            state["momentum_buffer"],
            momentum=group["momentum"],
            rate=group["lr"] * max(1, gradient.shape[0] / gradient.shape[1]) ** 0.5,
            kept=1.0,
            num_iterations=group["num_iterations"],
        )
        return update


def _work(matrix: Tensor) -> int:
    """Return what orthogonalising costs, in proportion."""
    return matrix.numel() * min(matrix.shape)


def _rows(total: int, ranks: int) -> list[int]:
    """Return the rows that each rank has, as `torch.chunk` divides them."""
    size = -(-total // ranks)
    return [max(0, min(size, total - rank * size)) for rank in range(ranks)]


def _local(tensor: Any) -> Tensor:
    assert isinstance(tensor, DTensor)
    return tensor.to_local()
