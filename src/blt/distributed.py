"""Several processes that train one model: who they are, and sums over all of them (torchrun, gloo or NCCL)."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from blt.errors import ConfigurationError
from blt.shapes import Tensor

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others before it fails. What the main process does alone, in `World.lead`, may take
longer, as long as it shows life more often than this."""
LIFE_SECONDS = 1.0
"""How often, at most, it does so."""
_FAILED, _DONE, _WORKING = -1, 0, 1


@dataclass(frozen=True)
class World:
    """This process among all."""

    rank: int = 0
    """Its number, from 0."""
    size: int = 1
    """How many there are."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def sum(self, value: int | float) -> float:
        """Add up a number over all processes."""
        if self.size == 1:
            return float(value)
        total = torch.tensor(value, dtype=torch.float64, device=_device_of_messages())
        dist.all_reduce(total)
        return float(total)

    def sum_gradients(self, weights: Iterable[Tensor]) -> None:
        """Add up the gradients over all processes, in one message per dtype; a weight without one counts as 0."""
        if self.size == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for weight in weights:
            if weight.grad is not None and weight.grad.is_sparse:
                weight.grad = self._sum_sparse(weight.grad.coalesce())
            elif weight.requires_grad:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                by_dtype.setdefault(weight.grad.dtype, []).append(weight.grad)
        for gradients in by_dtype.values():
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            for gradient, summed in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
                gradient.copy_(summed.view_as(gradient))

    def _sum_sparse(self, gradient: Tensor) -> Tensor:
        """Add up gradients that hold other rows in each process: all get all of them."""
        rows, values = gradient.indices()[0], gradient.values()  # N, N D
        counts = rows.new_zeros(self.size)
        counts[self.rank] = len(rows)
        dist.all_reduce(counts)
        longest = int(counts.max())
        all_rows = [rows.new_empty(longest) for _ in counts]
        all_values = [values.new_empty(longest, values.shape[1]) for _ in counts]
        dist.all_gather(all_rows, nn.functional.pad(rows, (0, longest - len(rows))))
        dist.all_gather(all_values, nn.functional.pad(values, (0, 0, 0, longest - len(rows))))
        kept_rows = torch.cat([some[:count] for some, count in zip(all_rows, counts.tolist(), strict=True)])
        kept_values = torch.cat([some[:count] for some, count in zip(all_values, counts.tolist(), strict=True)])
        return torch.sparse_coo_tensor(kept_rows[None], kept_values, gradient.shape, check_invariants=True).coalesce()

    def lead(self, work: Callable[[Callable[[], None]], None]) -> bool:
        """Run `work` in the main process alone, however long it takes, while the others wait.

        Args:
            work: gets a function, to be called more often than `PATIENCE`, that shows the others that it goes on.

        Returns:
            Whether it was done. Where it fails, the main process raises its error, and False comes back in the others.
        """
        if self.size == 1:
            work(lambda: None)
            return True
        if not self.is_main:
            while (state := self.sum(0)) == _WORKING:
                pass
            return state == _DONE
        shown = time.monotonic()

        def show_life() -> None:
            nonlocal shown
            if time.monotonic() - shown >= LIFE_SECONDS:
                self.sum(_WORKING)
                shown = time.monotonic()

        state = _FAILED
        try:
            work(show_life)
            state = _DONE
        finally:
            self.sum(state)
        return True

    def wait(self) -> None:
        """Go on once all processes are here."""
        if self.size > 1:
            dist.barrier()


def choose_device(name: str) -> torch.device:
    """Return this process's device.

    Args:
        name: as PyTorch names it, or `auto`: a GPU if there is one. The processes of one machine share out its GPUs,
            unless the name has a number.

    Raises:
        ConfigurationError: PyTorch does not know the device, or this machine does not have it.
    """
    by_itself = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(by_itself if name == "auto" else name)
        if str(device) == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.zeros(1, device=device).item()  # the device meta, which holds no numbers, can make them
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigurationError(f"device: {name!r} cannot be used ({reason}); try 'cpu' or 'auto'") from None
    return device


@contextmanager
def joined_world(device: torch.device) -> Iterator[World]:
    """Join the processes that `torchrun` started; alone without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", timeout=PATIENCE, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield World(rank=dist.get_rank(), size=dist.get_world_size())
    finally:
        dist.destroy_process_group()


def _device_of_messages() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
