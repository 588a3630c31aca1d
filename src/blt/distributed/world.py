"""Several processes that train one model: who they are, and sums over all of them (torchrun, gloo or NCCL)."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from blt.distributed.meeting import agree_on_name
from blt.errors import ConfigurationError

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
        return self.sums(value)[0]

    def sums(self, *values: int | float) -> list[float]:
        """Add up each of some numbers over all processes, in one message."""
        if self.size == 1:
            return [float(value) for value in values]
        totals = torch.tensor(values, dtype=torch.float64, device="cpu")
        dist.all_reduce(totals)
        return totals.tolist()

    def gather(self, values: Sequence[float]) -> list[float]:
        """Return the numbers of all processes, as many from each, in the order of the ranks."""
        if self.size == 1:
            return list(values)
        own = torch.tensor(values, dtype=torch.float64, device="cpu")
        gathered = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(gathered, own)
        return torch.cat(gathered).tolist()

    def from_main(self, value: float) -> float:
        """Return the main process's number, in all processes."""
        return self.sum(value if self.is_main else 0.0)

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
    shared, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    name = agree_on_name(shared, rank=rank, size=size, timeout=PATIENCE)
    options = {"store": PrefixStore(name, shared), "rank": rank, "world_size": size, "timeout": PATIENCE}
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # Numbers of the host go by gloo: a message by NCCL would wait for the GPU.
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device, **options)
    else:
        dist.init_process_group("gloo", **options)
    try:
        yield World(rank=dist.get_rank(), size=dist.get_world_size())
    finally:
        dist.destroy_process_group()


def num_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
