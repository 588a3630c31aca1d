"""The training loop, and how a run is stopped from outside so that it can go on later."""

import ctypes
import math
import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from blt.codec import BYTE_OFFSET
from blt.data import Batch, Windows
from blt.distributed import World
from blt.errors import TrainingError
from blt.loss import NOT_PREDICTED
from blt.ops import is_waited_for
from blt.training.checkpoints import Checkpoints, Progress
from blt.training.losses import Losses, StepLoss
from blt.training.monitor import Monitor
from blt.training.objectives import Objective
from blt.training.optimizers import build_optimizers
from blt.training.parallelize import Alone, matmul_dtype, parallelize
from blt.training.parts import PartsConfig, freeze
from blt.training.read_ahead import ReadAhead
from blt.training.recipe import LoopConfig


class Stopped(Exception):  # noqa: N818 (an event, not an error)
    """The run was asked to stop, and has kept all that it has done."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Note SIGINT and SIGTERM instead of dying; a second one acts as usual.

    A SIGINT that whoever started this process wants ignored, as nohup or a shell's `&` does, stays ignored.
    """
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (a signal handler's signature)
        asked.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if number == signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN:
            continue
        try:
            before[number] = signal.signal(number, note)
        except ValueError:  # not the main thread: whoever runs us handles signals
            continue
    try:
        yield lambda: bool(asked)
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


Validate = Callable[[int], float]
"""Returns the held-out bits per byte of the module as it is now, given the optimiser step."""


@dataclass(kw_only=True)
class Trainer:
    """One stage: what is trained, on what, how, and who follows it."""

    objective: Objective
    windows: Windows
    config: LoopConfig
    validate: Validate
    checkpoints: Checkpoints
    monitor: Monitor
    device: torch.device
    world: World
    asked_to_stop: Callable[[], bool]
    parts: PartsConfig | None = None
    seed: int = 0
    sharing: Alone | None = None
    """How the ranks share the work; None: as `config` says."""
    parallel: Alone = field(init=False)
    losses: Losses = field(init=False)
    batches: ReadAhead = field(init=False)
    optimizers: list[Optimizer] = field(init=False)
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.parallel = self.sharing or parallelize(self.objective, self.config, world=self.world, device=self.device)
        self.losses = Losses(self.world)
        self.batches = ReadAhead(self.windows, self.config, world=self.world, costs=self.objective.costs)

    def run(self) -> Progress:
        """Train until the last step; goes on from the last checkpoint if there is one.

        Raises:
            TrainingError: the loss is no finite number, or memory does not suffice; the last checkpoint is as it was.
            Stopped: a stop was asked for; a checkpoint of this very step has been written.
        """
        self.optimizers = build_optimizers(self.objective.module, self.config.optimizer, parts=self.parts)
        self.progress = self.parallel.load(self.checkpoints, self.optimizers, parts=self.parts)
        if self.config.compile:
            self.parallel.compile()
        with self.monitor.following(self.progress), self.batches:
            try:
                while self.progress.step < self.config.num_steps:
                    self.step()
                    self.finish_step()
            except BaseException:
                with suppress(Exception):  # the error that ended the run is the one to show
                    self.parallel.finish_saving()
                raise
            self.parallel.finish_saving()
            self.world.wait()  # all find the last checkpoint
        return self.progress

    def step(self) -> None:
        """Run one optimiser step."""
        started = time.perf_counter()
        config, progress, module = self.config, self.progress, self.objective.module
        freeze(module, self.parts, step=progress.step)
        self.parallel.begin_step()
        factor = config.schedule.factor(progress.step, num_steps=config.num_steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
        with explain_out_of_memory(self.monitor.stage, config):
            loss = self.accumulate_gradients()
        self.losses.add(loss, step=progress.step + 1, norm=self.parallel.clip())
        if not is_waited_for(self.device):  # another device is not waited for: it stops before it saves what went wrong
            self.losses.read()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.num_bytes += loss.num_bytes
        if self._needs_losses():
            self.losses.read()
        progress.seconds += time.perf_counter() - started
        self.note_losses()

    def _needs_losses(self) -> bool:
        """Whether a row of metrics is due after this step, or the weights are measured or saved."""
        config, step = self.config, self.progress.step
        often = (config.log_every, config.validate_every, config.checkpoint_every)
        return step >= config.num_steps or any(step % every == 0 for every in often)

    def note_losses(self) -> None:
        """Pass on the losses that were read."""
        if (read := self.losses.take()) is not None:
            step, config = self.progress.step, self.config
            factor = config.schedule.factor(step - 1, num_steps=config.num_steps)
            self.monitor.step(self.progress, nats=read.nats, num_bytes=read.num_bytes, norm=read.norm, factor=factor)

    def accumulate_gradients(self) -> StepLoss:
        """Leave the gradients of one step's mean loss in the weights, over all parts and ranks."""
        world, parallel = self.world, self.parallel
        batch = self.batches.take(self.progress.step)
        counts = (int((batch.targets != NOT_PREDICTED).sum()), int((batch.targets >= BYTE_OFFSET).sum()))
        num_targets, num_bytes = (int(count) for count in world.sums(*counts))
        num_targets = max(1, num_targets)
        torch.manual_seed(step_seed(self.seed, step=self.progress.step, rank=world.rank))
        nats = []
        parts = list(parts_of(batch, self.config.accumulation))
        for number, part in enumerate(parts, 1):
            with parallel.part(is_last=number == len(parts)):
                with autocast(self.config, self.device):
                    loss = self.objective.loss_sum(part)
                torch.autograd.backward(loss / num_targets)
            nats.append(loss.detach())
        parallel.sum_gradients()
        return StepLoss(nats=torch.stack(nats), num_targets=num_targets, num_bytes=num_bytes)

    def finish_step(self) -> None:
        """Validate and save where it is time to.

        Raises:
            TrainingError: a weight, a moment or the held-out loss is not finite; the last checkpoint is as it was.
            Stopped: on any rank, a stop was asked for.
        """
        config, progress, module = self.config, self.progress, self.objective.module
        is_last = progress.step >= config.num_steps
        is_stopping = bool(self.world.sum(self.asked_to_stop()))
        is_best = False
        if is_stopping:
            self.losses.read()
            self.note_losses()
        if is_last or (progress.step % config.validate_every == 0 and not is_stopping):
            self.parallel.require_finite(step=progress.step)
            module.eval()
            with torch.compiler.set_stance("force_eager"):  # documents have many shapes, each costly to compile
                bits_per_byte = self.world.from_main(self.validate(progress.step))
            self.parallel.after_validation()
            module.train()
            if not math.isfinite(bits_per_byte):
                raise TrainingError(
                    f"step {progress.step}: held-out loss {bits_per_byte}; the last checkpoint is as it was; start in "
                    "another --out with a lower learning_rate"
                )
            is_best = progress.is_better(bits_per_byte)
            if is_best:
                progress.best_bits_per_byte = bits_per_byte
            self.monitor.validation(progress, bits_per_byte=bits_per_byte)
        progress.is_finished = is_last
        if is_last or is_best or is_stopping or progress.step % config.checkpoint_every == 0:
            self.monitor.saving(progress)
            self.parallel.save(self.checkpoints, self.optimizers, progress, is_best=is_best)
        if is_stopping and not is_last:
            self.parallel.finish_saving()  # several ranks write in the background, and `Stopped` says that it is saved
            raise Stopped(f"stopped after step {progress.step:,}, which is saved; run the same command to go on")


def step_seed(seed: int, *, step: int, rank: int) -> int:
    """Return the dropout seed of an optimiser step and rank, which does not depend on where a run was resumed."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def explain_out_of_memory(stage: str, config: LoopConfig) -> Iterator[None]:
    """Explain what helps when memory does not suffice.

    Raises:
        TrainingError: in place of PyTorch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise TrainingError(
                f"{stage}: memory does not suffice for {config.batch_size // config.accumulation} rows × "
                f"{config.sequence_length} bytes at once; set {stage}.loop.accumulation above {config.accumulation}"
            ) from error
        raise


def parts_of(batch: Batch, count: int) -> Iterator[Batch]:
    """Cut a batch into parts of rows."""
    rows = len(batch.byte_ids)
    size = -(-rows // count)
    for start in range(0, rows, size):
        yield batch.rows(slice(start, start + size))


def autocast(config: LoopConfig, device: torch.device) -> torch.autocast:
    """Return the autocast context of matmuls: bfloat16 if asked for, or with `auto` where the hardware supports it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=matmul_dtype(config, device) == torch.bfloat16)


_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
"""Names of two settings of glibc's `mallopt`."""


def keep_freed_memory() -> None:
    """Make the C library reuse large blocks that are freed, instead of mapping new ones in every optimiser step.

    Each new page costs a fault. The settings hold for the whole process, for good; only glibc has them, and elsewhere
    nothing changes.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
