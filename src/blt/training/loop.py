"""The training loop."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import torch
from torch import nn

from blt.data import Batch, Windows
from blt.distributed import World
from blt.errors import TrainingError
from blt.training.checkpoints import Checkpoints, Progress
from blt.training.monitor import Monitor
from blt.training.objectives import NOT_PREDICTED, Objective
from blt.training.optimizers import build_optimizers
from blt.training.recipe import LoopConfig

Validate = Callable[[], float]
"""Gives the held-out bits per byte of the module as it is now."""


class Stopped(Exception):  # noqa: N818 (an event, not an error)
    """The run was asked to stop, and has saved."""


def train(
    objective: Objective,
    windows: Windows,
    config: LoopConfig,
    *,
    validate: Validate,
    checkpoints: Checkpoints,
    monitor: Monitor,
    device: torch.device,
    world: World,
) -> Progress:
    """Train until the last step; goes on from the last checkpoint if there is one.

    Raises:
        TrainingError: the loss is no finite number; the last checkpoint is as it was.
        Stopped: SIGINT or SIGTERM came; a checkpoint of this very step has been written.
    """
    module = objective.module
    optimizers = build_optimizers(module, config.optimizer)
    progress = checkpoints.load(module, optimizers)
    if config.compile:
        objective.compile()
    monitor.start(progress)
    with stop_requests() as asked_to_stop:
        while progress.step < config.num_steps:
            started = time.perf_counter()
            factor = config.schedule.factor(progress.step, num_steps=config.num_steps)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * factor
            nats, num_targets = accumulate_gradients(objective, windows, config, progress.step, device, world)
            norm = float(nn.utils.clip_grad_norm_(module.parameters(), config.clip))
            if not (math.isfinite(nats) and math.isfinite(norm)):
                raise TrainingError(
                    f"step {progress.step + 1}: loss {nats / num_targets:.4g}, gradient norm {norm:.4g}; "
                    f"lower the learning rate or clip more, and run again from the last checkpoint"
                )
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            progress.step += 1
            progress.num_bytes += num_targets
            progress.seconds += time.perf_counter() - started
            monitor.step(progress, nats=nats, num_targets=num_targets, norm=norm, factor=factor)
            finish_step(module, optimizers, progress, config, validate, checkpoints, monitor, world, asked_to_stop())
    return progress


def accumulate_gradients(
    objective: Objective, windows: Windows, config: LoopConfig, step: int, device: torch.device, world: World
) -> tuple[float, int]:
    """Leave the gradients of one step's mean loss in the weights, over all parts and ranks.

    Returns:
        Summed nats and number of targets, over all ranks.
    """
    rows = config.rows // world.size
    batch = windows.batch(step, rows=rows, rank=world.rank, world_size=world.size)
    num_targets = int(world.sum(int((batch.targets != NOT_PREDICTED).sum())))
    nats = 0.0
    for part in parts_of(batch, config.accumulation):
        with autocast(config, device):
            loss = objective.nats(to_device(part, device))
        torch.autograd.backward(loss / max(1, num_targets))
        nats += loss.item()
    world.sum_gradients(objective.module.parameters())
    return world.sum(nats), max(1, num_targets)


def finish_step(
    module: nn.Module,
    optimizers: list[Any],
    progress: Progress,
    config: LoopConfig,
    validate: Validate,
    checkpoints: Checkpoints,
    monitor: Monitor,
    world: World,
    is_stopping: bool,
) -> None:
    """Validate and save where it is time to; raises `Stopped` when asked to stop."""
    is_last = progress.step == config.num_steps
    is_stopping = bool(world.sum(is_stopping))
    is_best = False
    if is_last or (progress.step % config.validate_every == 0 and not is_stopping):
        module.eval()
        bits_per_byte = validate()
        module.train()
        is_best = progress.best_bits_per_byte is None or bits_per_byte < progress.best_bits_per_byte
        if is_best:
            progress.best_bits_per_byte = bits_per_byte
        monitor.validation(progress, bits_per_byte=bits_per_byte)
    progress.is_finished = is_last
    if world.is_main and (is_last or is_best or is_stopping or progress.step % config.checkpoint_every == 0):
        checkpoints.save(module, optimizers, progress, is_best=is_best)
    world.wait()
    if is_stopping and not is_last:
        raise Stopped(f"stopped after step {progress.step:,}, which is saved; run the same command to go on")


def parts_of(batch: Batch, count: int) -> Iterator[Batch]:
    """Cut a batch into parts of rows."""
    rows = len(batch.byte_ids)
    size = -(-rows // count)
    for start in range(0, rows, size):
        part = slice(start, start + size)
        entropies = None if batch.entropies is None else batch.entropies[part]
        yield replace(batch, byte_ids=batch.byte_ids[part], targets=batch.targets[part], entropies=entropies)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch."""
    entropies = None if batch.entropies is None else batch.entropies.to(device)
    return replace(batch, byte_ids=batch.byte_ids.to(device), targets=batch.targets.to(device), entropies=entropies)


def autocast(config: LoopConfig, device: torch.device) -> torch.autocast:
    """Give the precision of matrix products: bfloat16 where asked for, or by itself on a GPU that has it."""
    by_itself = config.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=by_itself or config.precision == "bfloat16")


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Note SIGINT and SIGTERM instead of dying; a second one acts as usual."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (a signal handler's signature)
        asked.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            before[number] = signal.signal(number, note)
        except ValueError:  # not the main thread: whoever runs us handles signals
            continue
    try:
        yield lambda: bool(asked)
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
