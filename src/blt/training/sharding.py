"""FSDP2: weights, gradients and moments divided over the ranks of a replica; see `parallelize`."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from blt.distributed import SHARD, World, new_mesh
from blt.model.cross_attention import CrossAttention
from blt.model.hash_embedding import HashEmbedding
from blt.shapes import Float, Tensor
from blt.training.checkpoints import (
    Checkpoints,
    Progress,
    first_not_finite,
    not_finite,
    not_finite_in_training,
    numbered_weights,
)
from blt.training.new_weights import NewWeights, Part
from blt.training.objectives import Objective
from blt.training.optimizers import gradients_of, scale_down
from blt.training.parallelize import Alone, layers_of, matmul_dtype
from blt.training.parts import PartsConfig
from blt.training.recipe import LoopConfig
from blt.training.sharded_checkpoints import Saver, read_parts
from blt.training.table_shards import TableShard


class Sharded(Alone):
    """FSDP2: every layer's weights, gradients and moments are divided over the ranks of a replica.

    The module that is given gives up its weights (it goes to the meta device), and a divided copy is trained; with
    `new_weights` it had none yet, and each rank gets memory for its parts alone. What is
    in no layer, the tied embedding among it, is one group that stays gathered from the first byte to the logits. Tables
    of n-grams are divided by columns, and never gathered.
    """

    def __init__(
        self,
        objective: Objective,
        config: LoopConfig,
        *,
        world: World,
        device: torch.device,
        new_weights: NewWeights[Any] | None = None,
    ) -> None:
        """Divide the module; see `parallelize`."""
        given = objective.module
        objective.module = objective.called = copy.deepcopy(given)
        given.to("meta")
        super().__init__(objective, config, world=world)
        self.mesh = new_mesh(world, device_type=device.type, shards=config.shards)
        if config.compile:  # within the layers, since gathering breaks a graph
            for layer in layers_of(objective.module):
                layer.compile(dynamic=False)
        self.saver = Saver(world)
        self.tables = _divide_tables(objective.module, self.mesh)
        dtype = matmul_dtype(config, device)
        policy = MixedPrecisionPolicy(cast_forward_inputs=False)  # the residual stream keeps full precision
        if dtype != torch.float32:
            policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        mesh = self.mesh if config.shards not in (None, world.size) else self.mesh[SHARD]
        for part in (*layers_of(objective.module), *_parts(objective.module, CrossAttention)):
            fully_shard(part, mesh=mesh, mp_policy=policy)
        ignored: set[nn.Parameter] = {table.weight for table in self.tables.values()}
        fully_shard(objective.module, mesh=mesh, mp_policy=policy, ignored_params=ignored)
        for part in _parts(objective.module, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)
        if new_weights is not None:
            objective.module.to_empty(device=device)
            new_weights.draw(self.own_parts())

    @torch.no_grad()
    def own_parts(self) -> dict[str, Part]:
        """Return this rank's part of every weight, by name."""
        parts, rank, shards = {}, self.mesh[SHARD].get_local_rank(), self.mesh[SHARD].size()
        columns = {f"{name}.weight": table.first_column for name, table in self.tables.items()}
        for name, weight in self.objective.module.named_parameters():
            if name in columns:
                parts[name] = Part(local=_local(weight.detach()), dim=1, start=columns[name])
            else:  # rows, as `torch.chunk` divides them
                start = rank * -(-weight.shape[0] // shards)
                parts[name] = Part(local=_local(weight.detach()), dim=0, start=start)
        return parts

    def compile(self) -> None:
        """Do nothing more: layers were compiled before they were divided."""

    @contextmanager
    def part(self, *, is_last: bool) -> Iterator[None]:
        """Sum over replicas in the last part only.

        Within a replica gradients are summed in every part: whole gradients would not fit beside divided weights.
        """
        self.objective.module.set_requires_all_reduce(is_last)
        yield

    def sum_gradients(self) -> None:
        """Add up the gradients of the n-gram tables over replicas."""
        for table in self.tables.values():
            table.sum_over_replicas()

    @torch.no_grad()
    def clip(self) -> Float[Tensor, ""]:
        """Clip the gradients by their global norm, to which each rank of a replica adds its part."""
        gradients = [_local(gradient) for gradient in gradients_of(self.objective.module.parameters())]
        square = nn.utils.get_total_norm(gradients).square()
        dist.all_reduce(square, group=self.mesh.get_group(SHARD))
        norm = square.sqrt()
        scale_down(gradients, norm, max_norm=self.config.clip)
        return norm

    def after_validation(self) -> None:
        """Divide again what the last forward pass has left gathered for a backward pass."""
        self.objective.module.reshard()

    def require_finite(self, *, step: int) -> None:
        """Refuse weights that are not finite, on all ranks together."""
        self._require_finite(self.weights(), step=step)

    def save(self, checkpoints: Checkpoints, optimizers: list[Optimizer], progress: Progress, *, is_best: bool) -> None:
        """Begin to write a checkpoint, each rank its parts."""
        weights, moments = self.weights(), self.moments(optimizers)
        self._require_finite(weights | moments, step=progress.step)
        self.saver.save(checkpoints, weights, moments, progress, is_best=is_best)

    def finish_saving(self) -> None:
        """Wait until the last checkpoint is written."""
        self.saver.finish()

    def load(
        self, checkpoints: Checkpoints, optimizers: list[Optimizer], *, parts: PartsConfig | None = None
    ) -> Progress:
        """Go back to the last checkpoint, of any number of ranks; a fresh start where there is none."""
        module, weights = self.objective.module, self.weights()
        shapes = {weight: tuple(weights[name].shape) for name, weight in module.named_parameters()}

        def fill(folder: Path) -> None:
            read_parts(folder, weights, optimizers, shapes=shapes, as_part=self.as_dtensor)
            for tensors in (weights, self.moments(optimizers)):
                if name := self._not_finite(tensors):
                    raise not_finite(folder, name)

        return checkpoints.go_back(fill, module, parts=parts)

    def moments(self, optimizers: list[Optimizer]) -> dict[str, Tensor]:
        """Return what the optimisers keep by name, as parts of the whole."""
        return {
            f"{number}.{index}.{key}": self.as_dtensor(weight, tensor)
            for number, index, optimizer, weight in numbered_weights(optimizers)
            for key, tensor in optimizer.state.get(weight, {}).items()
        }

    def _require_finite(self, tensors: Mapping[str, Tensor], *, step: int) -> None:
        name = self._not_finite(tensors)
        if name:
            raise not_finite_in_training(name, step=step)

    def _not_finite(self, tensors: Mapping[str, Tensor]) -> str | None:
        """Return the name of a tensor with a NaN or an infinity in it on any rank; None if all are finite on all."""
        name = first_not_finite({name: _local(tensor) for name, tensor in tensors.items()})
        return (name or "a tensor of another rank") if self.world.sum(name is not None) else None

    def weights(self) -> dict[str, Tensor]:
        """Return the weights by name, as parts of the whole."""
        weights: dict[str, Tensor] = dict(self.objective.module.state_dict())
        for name, weight in self.objective.module.named_parameters():
            weights[name] = self.as_dtensor(weight, weights[name])
        return weights

    def as_dtensor(self, weight: Tensor, tensor: Tensor) -> Tensor:
        """Return a weight, or what an optimiser keeps of it, as a part of the whole; as it is if all ranks have it."""
        for table in self.tables.values():
            if weight is table.weight and not isinstance(tensor, DTensor) and tensor.ndim == len(table.shape):
                return table.as_dtensor(tensor.detach())
        return tensor

    @contextmanager
    def whole_weights(self, module: nn.Module) -> Iterator[None]:
        """Gather all weights in the main process's `module`, and free them after."""
        whole = {}
        for name, weight in self.weights().items():
            gathered = weight.full_tensor() if isinstance(weight, DTensor) else weight
            if self.world.is_main:
                whole[name] = gathered.detach()
        if self.world.is_main:
            module.load_state_dict(whole, assign=True)
        module.eval()
        try:
            yield
        finally:
            module.to("meta")


def _divide_tables(module: nn.Module, mesh: Any) -> dict[str, TableShard]:
    tables: dict[str, TableShard] = {}
    for name, part in module.named_modules():
        if isinstance(part, HashEmbedding) and part.ngrams is not None:
            shard = TableShard(part.ngrams.weight, mesh=mesh, sparse=part.sparse_gradients)
            part.ngrams = tables[f"{name}.ngrams"] = shard  # type: ignore[assignment]
    return tables


def _parts(module: nn.Module, kind: Any) -> list[Any]:
    return [part for part in module.modules() if isinstance(part, kind)]


def _local(tensor: Tensor) -> Tensor:
    if isinstance(tensor, DTensor):
        return tensor.to_local()
    return tensor.values() if tensor.is_sparse else tensor
