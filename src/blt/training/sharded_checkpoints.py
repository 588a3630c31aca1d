"""Checkpoints of several ranks, by PyTorch's Distributed Checkpoint, in the same files as those of one process.

Each rank writes its parts as safetensors, which the main process then joins. So any number of ranks goes on from what
any other number has written, and reads the parts that it needs. No pickle is written to a file or read from one.
"""

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from blt.checkpoint import beside, load_headers, require_names, sync
from blt.distributed import PATIENCE, World
from blt.errors import CheckpointError, one_line
from blt.shapes import Tensor
from blt.training.checkpoints import MOMENTS, WEIGHTS, Checkpoints, Progress, check_moments, numbered_weights
from blt.training.optimizers import shapes_of_state
from blt.training.row_adam import RowAdam
from blt.training.sharded_muon import ShardedMuon

AsPart = Callable[[Tensor, Tensor], Tensor]
"""(weight, what an optimiser keeps of it) → the latter, as a part of the whole."""


class Saver:
    """Writes checkpoints of several ranks in the background, one at a time, while training goes on.

    The tensors are copied to the host before `save` returns. Messages between the ranks go through a group of their
    own, on gloo, so that they never mix with those of training.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE)
        options = StagingOptions(
            use_pinned_memory=False, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=False
        )
        self._stager = DefaultStager(options)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(
        self,
        checkpoints: Checkpoints,
        weights: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        progress: Progress,
        *,
        is_best: bool,
    ) -> None:
        """Begin to write a checkpoint, once the one before is written; all ranks must call this.

        Args:
            checkpoints: where to.
            weights: DTensors, or tensors that all ranks hold alike, by name.
            moments: the same, or tensors that one rank alone holds.
            progress: where the stage stands.
            is_best: whether `best` is to point to it.

        Raises:
            OutputError: the one before could not be written.
        """
        self.finish()
        # Joining loses the value of a tensor without dimensions (PyTorch 2.13): counts of steps are given one.
        tensors = {name: tensor.detach() for name, tensor in {**weights, **moments}.items()}
        tensors = {name: tensor if tensor.ndim else tensor.view(1) for name, tensor in tensors.items()}
        staged = self._stager.stage(tensors)
        names, progress = set(weights), replace(progress)
        self._pending = self._thread.submit(self._write, checkpoints, staged, names, progress, is_best)

    def finish(self) -> None:
        """Wait until what was begun is written.

        Raises:
            OutputError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(
        self, checkpoints: Checkpoints, tensors: Any, weights: set[str], progress: Progress, is_best: bool
    ) -> None:
        def fill(folder: Path) -> None:
            dist.barrier(group=self._group)  # the folder is there, and what a kill left there is not
            write_parts(folder, tensors, weights, group=self._group, is_main=self.world.is_main)

        if self.world.is_main:
            checkpoints.write(fill, progress, is_best=is_best)
        else:
            fill(beside(checkpoints.folder_of(progress), "saving"))


def write_parts(
    folder: Path, tensors: dict[str, Tensor], weights: set[str], *, group: dist.ProcessGroup, is_main: bool
) -> None:
    """Write this rank's parts, and in the main process join those of all; all ranks must call this.

    Args:
        folder: where the files come to lie; it exists.
        tensors: weights and moments: DTensors, tensors that several ranks hold alike, or one rank alone.
        weights: names of those that are weights.
        group: the ranks.
        is_main: whether this is the main process.

    Raises:
        OutputError: a rank could not write.
    """
    writer = _Writer(str(folder / _JOINED), weights)
    with _quiet():
        try:
            save(tensors, storage_writer=writer, process_group=group)
        except CheckpointException as error:
            raise _first_failure(error) from error
    if is_main:
        for number, name in ((1, WEIGHTS), (2, MOMENTS)):
            joined = folder / _JOINED / f"model-{number:05d}-of-00002.safetensors"
            sync(joined)
            joined.replace(folder / name)
        shutil.rmtree(folder / _JOINED)


_JOINED = "parts"


class _Writer(HuggingFaceStorageWriter):
    """Joins the parts of all ranks into two files: weights, and moments."""

    def __init__(self, path: str, weights: set[str]) -> None:
        super().__init__(path, save_distributed=True, enable_consolidation=True)
        self._weights = weights

    def prepare_global_plan(self, plans: list[Any]) -> list[Any]:
        """Assign tensors to files, here where it is known what each rank holds."""
        names = {item.index.fqn for plan in plans for item in plan.items}
        self.fqn_to_index_mapping = {name: 1 if name in self._weights else 2 for name in names}
        return super().prepare_global_plan(plans)


def _first_failure(error: CheckpointException) -> BaseException:
    """Return what a rank has raised, an error of the operating system where there is one.

    What holds all of them is no `Exception`, so that nobody who expects one would take it.
    """
    failures = [failure for failure, _ in error.failures.values()]
    return next((failure for failure in failures if isinstance(failure, OSError)), failures[0])


def read_parts(
    folder: Path,
    weights: dict[str, Tensor],
    optimizers: list[Optimizer],
    *,
    shapes: dict[Tensor, tuple[int, ...]],
    as_part: AsPart,
) -> None:
    """Fill this rank's parts of the weights and of the optimisers' state; all ranks must call this.

    Args:
        folder: the checkpoint.
        weights: DTensors, by name, to be filled.
        optimizers: to be filled.
        shapes: of the whole weights.
        as_part: how moments are divided.

    Raises:
        CheckpointError: the checkpoint is broken, or of another model or optimiser.
    """
    headers = load_headers(folder / WEIGHTS, error=CheckpointError)
    require_names(headers, weights, where=folder / WEIGHTS, error=CheckpointError)
    for name, weight in weights.items():
        if headers[name].shape != tuple(weight.shape):
            raise CheckpointError(
                f"{folder / WEIGHTS}: {name} has shape {headers[name].shape}, not {tuple(weight.shape)}"
            )
    of_moments = load_headers(folder / MOMENTS, error=CheckpointError)
    found = {name: header.shape for name, header in of_moments.items()}
    check_moments(found, optimizers, where=folder / MOMENTS, shape_of=shapes.__getitem__)
    wanted = dict(weights)
    for number, index, optimizer, weight in numbered_weights(optimizers):
        for key, tensor in _empty_state(optimizer, weight, shapes[weight]).items():
            if (name := f"{number}.{index}.{key}") in found:
                optimizer.state[weight][key] = tensor
                wanted[name] = as_part(weight, tensor) if tensor.ndim else tensor.view(found[name])
    parts = {name: tensor.detach() for name, tensor in wanted.items()}
    with _quiet():
        try:
            load(parts, storage_reader=HuggingFaceStorageReader(str(folder)))
        except CheckpointException as error:
            reason = one_line(str(_first_failure(error)))
            raise CheckpointError(f"{folder}: cannot be read ({reason}); copy it again") from error


def _empty_state(optimizer: Optimizer, weight: Tensor, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Return what an optimiser keeps of a weight on this rank, to be filled."""
    if isinstance(optimizer, ShardedMuon):
        if not optimizer.owns(weight):
            return {}
        return {key: torch.zeros(size, device=weight.device) for key, size in shapes_of_state(optimizer, shape).items()}
    state: dict[str, Tensor] = {"exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
    if isinstance(optimizer, RowAdam):
        return state | {"row_steps": weight.new_zeros(len(weight))}
    return {"step": torch.zeros((), device=weight.device)} | state


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what PyTorch warns of that is not the user's to change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
