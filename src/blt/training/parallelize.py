"""How the ranks share the training of one stage: alone, DDP, or FSDP2; the model knows nothing of it.

All add gradients up, since a step's loss is divided by the targets of all ranks (`Trainer`), and average nothing: gloo
has no average, and would return a sum.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from blt.configuration import check
from blt.distributed import World, sum_rows
from blt.nn.transformer import Layer
from blt.ops import fast_matmul_dtype
from blt.shapes import Float, Tensor
from blt.training.checkpoints import (
    Checkpoints,
    Progress,
    moments_of,
    require_finite,
)
from blt.training.new_weights import NewWeights
from blt.training.objectives import Objective
from blt.training.optimizers import clip_gradients, sparse_tables
from blt.training.parts import PartsConfig
from blt.training.recipe import LoopConfig


class Alone:
    """One process; also what all ways of sharing have in common."""

    def __init__(self, objective: Objective, config: LoopConfig, *, world: World) -> None:
        self.objective = objective
        self.config = config
        self.world = world
        if config.recompute:
            recompute_layers(objective.module)

    def compile(self) -> None:
        """Compile the parts that pay."""
        self.objective.compile()

    def begin_step(self) -> None:
        """Prepare an optimiser step, once it is known what is frozen in it."""

    def part(self, *, is_last: bool) -> AbstractContextManager[None]:  # noqa: ARG002 (communication, for others)
        """Return the context of one forward and backward pass of the step's parts."""
        return nullcontext()

    def sum_gradients(self) -> None:
        """Add up over the ranks what the backward passes have not."""

    def clip(self) -> Float[Tensor, ""]:
        """Clip the gradients, and return their global norm before."""
        return clip_gradients(self.objective.module.parameters(), max_norm=self.config.clip)

    def after_validation(self) -> None:
        """Free what the forward passes of a validation have left."""

    def require_finite(self, *, step: int) -> None:
        """Refuse weights that are not finite, on all ranks together.

        Raises:
            TrainingError: one of them is not.
        """
        require_finite(self.objective.module.state_dict(), step=step)

    def save(self, checkpoints: Checkpoints, optimizers: list[Optimizer], progress: Progress, *, is_best: bool) -> None:
        """Write a checkpoint; see `Checkpoints.save`."""
        checkpoints.save(self.objective.module, optimizers, progress, is_best=is_best)

    def load(
        self, checkpoints: Checkpoints, optimizers: list[Optimizer], *, parts: PartsConfig | None = None
    ) -> Progress:
        """Go back to the last checkpoint; see `Checkpoints.load`."""
        return checkpoints.load(self.objective.module, optimizers, parts=parts)

    def finish_saving(self) -> None:
        """Wait until the last checkpoint is written, where that goes on in the background."""

    @contextmanager
    def whole_weights(self, module: nn.Module) -> Iterator[None]:  # noqa: ARG002 (for those that divide them)
        """Have the main process's `module`, the one that was given, hold all weights as they are now."""
        yield


class Replicated(Alone):
    """DDP: every rank holds all weights; buckets of gradients are summed while the backward pass goes on."""

    def __init__(self, objective: Objective, config: LoopConfig, *, world: World) -> None:
        super().__init__(objective, config, world=world)
        from blt.training.sharded_checkpoints import Saver  # slow to import

        self.saver = Saver(world)
        self._trained: tuple[str, ...] = ()
        self._tables: list[Tensor] = []

    def begin_step(self) -> None:
        """Wrap the module again where a part has thawed, since DDP sums what was trained when it was made."""
        module = self.objective.module
        trained = tuple(name for name, weight in module.named_parameters() if weight.requires_grad)
        if trained == self._trained:
            return
        self.objective.called = module
        gc.collect()  # the old wrapper's hooks on gradients go with it, and it lies in cycles
        self._tables = sparse_tables(module)
        ignored = [name for name, weight in module.named_parameters() if any(weight is table for table in self._tables)]
        ignore: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model  # noqa: SLF001 (no other)
        ignore(module, ignored)
        wrapped = DistributedDataParallel(module, gradient_as_bucket_view=True)
        wrapped.register_comm_hook(None, lambda _, bucket: _sum_bucket(bucket))
        self.objective.called, self._trained = wrapped, trained

    def part(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Return a context that communicates in the last part only."""
        wrapped = self.objective.called
        assert isinstance(wrapped, DistributedDataParallel)
        return nullcontext() if is_last else wrapped.no_sync()

    def save(self, checkpoints: Checkpoints, optimizers: list[Optimizer], progress: Progress, *, is_best: bool) -> None:
        """Begin to write a checkpoint, of which each rank writes a share."""
        weights, moments = self.objective.module.state_dict(), moments_of(optimizers)
        require_finite(weights | moments, step=progress.step)
        self.saver.save(checkpoints, weights, moments, progress, is_best=is_best)

    def finish_saving(self) -> None:
        """Wait until the last checkpoint is written."""
        self.saver.finish()

    def sum_gradients(self) -> None:
        """Add up sparse gradients, which hold other rows on each rank."""
        for table in self._tables:
            if table.grad is not None:
                table.grad = sum_rows(table.grad.coalesce())


def parallelize(
    objective: Objective,
    config: LoopConfig,
    *,
    world: World,
    device: torch.device,
    new_weights: NewWeights[Any] | None = None,
) -> Alone:
    """Spread a stage's training over the ranks as its loop says; all ranks must call this.

    Args:
        objective: whose module is trained; FSDP puts a divided copy in its place.
        config: the loop.
        world: this process among all.
        device: of this process.
        new_weights: for FSDP, where the module is on the meta device: how each rank gets its part of the weights.

    Raises:
        ConfigurationError: sizes do not fit the number of ranks.
    """
    if world.size == 1:
        return Alone(objective, config, world=world)
    if config.parallel == "fsdp":
        from blt.training.sharding import Sharded  # slow to import

        return Sharded(objective, config, world=world, device=device, new_weights=new_weights)
    check(config.parallel == "ddp", f"parallel: {config.parallel!r}, with {world.size} ranks; give ddp or fsdp")
    return Replicated(objective, config, world=world)


def matmul_dtype(config: LoopConfig, device: torch.device) -> torch.dtype:
    """Return the precision of matmuls: bfloat16 if asked for, or with `auto` where the hardware supports it."""
    dtype = fast_matmul_dtype(device) if config.precision == "auto" else getattr(torch, config.precision)
    return torch.bfloat16 if dtype == torch.bfloat16 else torch.float32


def recompute_layers(module: nn.Module) -> None:
    """Have each layer compute its inner values again in the backward pass."""
    for layer in layers_of(module):
        layer.forward = _recomputed(layer.forward)  # type: ignore[method-assign]


def _recomputed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*inputs: Any) -> Tensor:
        return checkpoint(forward, *inputs, use_reentrant=False) if torch.is_grad_enabled() else forward(*inputs)

    return run


def _sum_bucket(bucket: Any) -> Any:
    """Start to sum a bucket of gradients over all ranks, and return the future (DDP's own hook averages)."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


def layers_of(module: nn.Module) -> list[Layer]:
    """List the layers of all stacks."""
    return [part for part in module.modules() if isinstance(part, Layer)]
