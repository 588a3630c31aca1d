"""Checkpoints of divided weights, by PyTorch's Distributed Checkpoint, in the same files as those of one process.

Each rank writes its parts as safetensors, which the main process then joins. So any number of ranks goes on from what
any other number has written, and reads the parts that it needs. No pickle is written or read.
"""

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from blt.checkpoint import load_headers, require_names, sync
from blt.errors import CheckpointError
from blt.shapes import Tensor
from blt.training.checkpoints import MOMENTS, WEIGHTS, check_moments, numbered_weights
from blt.training.optimizers import shapes_of_state
from blt.training.row_adam import RowAdam
from blt.training.sharded_muon import ShardedMuon

AsPart = Callable[[Tensor, Tensor], Tensor]
"""(weight, what an optimiser keeps of it) → the latter, as a part of the whole."""


def write_parts(folder: Path, weights: dict[str, Tensor], moments: dict[str, Tensor], *, is_main: bool) -> None:
    """Write this rank's parts, and in the main process join those of all; all ranks must call this.

    Args:
        folder: where the files come to lie; it exists.
        weights: DTensors, by name.
        moments: DTensors, and tensors that several ranks hold alike, or one rank alone.
        is_main: whether this is the main process.
    """
    for name, tensors in ((WEIGHTS, weights), (MOMENTS, moments)):
        parts = folder / f"{name}.parts"
        writer = HuggingFaceStorageWriter(str(parts), save_distributed=True, enable_consolidation=True)
        with _quiet():
            save({key: tensor.detach() for key, tensor in tensors.items()}, storage_writer=writer)
        if is_main:
            (joined,) = parts.glob("*.safetensors")
            sync(joined)
            joined.replace(folder / name)
            shutil.rmtree(parts)


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
                wanted[name] = as_part(weight, tensor)
    with _quiet():
        load(
            {name: tensor.detach() for name, tensor in wanted.items()},
            storage_reader=HuggingFaceStorageReader(str(folder)),
        )


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
