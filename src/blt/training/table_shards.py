"""An n-gram table divided over ranks by columns, for tables of millions of rows.

Gathering the table, as FSDP would, costs in proportion to its rows, of which a batch reads few. Here each rank looks up
its columns for the positions of all ranks, and the ranks exchange them: that costs in proportion to the batch. The
gradient of a column is then whole where the column lies, sparse or dense, and every rank reads the same rows, so that
`RowAdam` counts the same steps everywhere.
"""

import itertools

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from blt.configuration import check
from blt.distributed import REPLICATE, SHARD, join_columns, sum_rows
from blt.ops import embedding_bag
from blt.shapes import Float, Int, Tensor


class TableShard(nn.Module):
    """This rank's columns of an `NgramTable`, in its place.

    The weight is a DTensor, or, where gradients are sparse, which DTensors cannot be, the plain local columns.
    """

    def __init__(self, table: Tensor, *, mesh: DeviceMesh, sparse: bool) -> None:
        """Take this rank's columns.

        Args:
            table: the whole table, R × D.
            mesh: replicate × shard.
            sparse: whether its gradients are sparse.

        Raises:
            ConfigurationError: there are fewer columns than ranks need.
        """
        super().__init__()
        self.mesh = mesh
        self.shape = tuple(table.shape)
        parts = table.detach().chunk(mesh[SHARD].size(), dim=1)
        check(
            len(parts) == mesh[SHARD].size(),
            f"shards: n-gram tables of width {table.shape[1]} cannot be divided over {mesh[SHARD].size()} ranks",
        )
        self.widths = [part.shape[1] for part in parts]
        self.first_column = list(itertools.accumulate(self.widths, initial=0))[mesh[SHARD].get_local_rank()]
        local = parts[mesh[SHARD].get_local_rank()].clone(memory_format=torch.contiguous_format)
        self.weight = nn.Parameter(local if sparse else self.as_dtensor(local))

    def forward(self, hashes: Int[Tensor, "Z N"], *, sparse: bool = False) -> Float[Tensor, "Z D"]:
        """Sum the rows of each byte's n-grams; every rank must have as many bytes."""
        group = self.mesh.get_group(SHARD)
        of_all = hashes.new_empty(len(hashes) * len(self.widths), hashes.shape[1])
        dist.all_gather(list(of_all.chunk(len(self.widths))), hashes.contiguous(), group=group)
        local = self.weight.to_local() if isinstance(self.weight, DTensor) else self.weight
        return join_columns(embedding_bag(of_all, local, sparse=sparse), widths=self.widths, group=group)

    def as_dtensor(self, local: Tensor) -> DTensor:
        """Return local columns, of the table or of a moment, as a part of the whole."""
        placements = (Replicate(), Shard(1))
        size = torch.Size(self.shape)
        return DTensor.from_local(local, self.mesh, placements, run_check=False, shape=size, stride=(self.shape[1], 1))

    def sum_over_replicas(self) -> None:
        """Add up the gradient over the replicas, which read other batches; to be called once per optimiser step."""
        group, gradient = self.mesh.get_group(REPLICATE), self.weight.grad
        if gradient is None or dist.get_world_size(group) == 1:
            return
        if isinstance(gradient, DTensor):
            dist.all_reduce(gradient.to_local(), group=group)
        else:
            self.weight.grad = sum_rows(gradient.coalesce(), group=group)
