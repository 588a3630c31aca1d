"""Batches of the next steps, read in the background while a step runs.

A batch is a pure function of its step, so that nothing is kept of what was read ahead: a resumed run reads it again.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from blt.data import Batch, Windows
from blt.distributed import World
from blt.training.balance import share_out
from blt.training.recipe import LoopConfig

STEPS_AHEAD = 4
"""Steps whose batches are under way or wait at most, the present one among them; each is read by a thread of its own.
Enough for a batch from an object store to come while the steps before it run, also where a read is repeated."""


class ReadAhead:
    """The batches of one rank, in the order of their steps."""

    def __init__(
        self,
        windows: Windows,
        config: LoopConfig,
        *,
        world: World,
        costs: Callable[[Batch], Sequence[float] | None],
    ) -> None:
        """Prepare to read; nothing is read before the first batch is asked for.

        Args:
            windows: what is read.
            config: batch size, number of steps, and whether rows are balanced.
            world: this process among all; all ask for the batches of the same steps.
            costs: returns what each row of a batch will cost; None if all cost the same.
        """
        self._windows, self._config, self._world, self._costs = windows, config, world, costs
        self._rows = config.batch_size // world.size
        self._pool = ThreadPoolExecutor(STEPS_AHEAD, thread_name_prefix="read-ahead")
        self._own: dict[int, Future[Batch]] = {}
        self._shared_out: dict[int, Future[Batch]] = {}

    def take(self, step: int) -> Batch:
        """Return this rank's batch of a step, and let those of the steps after it be read.

        Raises:
            DataError: what this step reads cannot be read.
        """
        for reads in (self._own, self._shared_out):
            for earlier in [number for number in reads if number < step]:
                del reads[earlier]
        for number in range(step, max(step + 1, min(step + STEPS_AHEAD, self._config.num_steps))):
            if number not in self._own and number not in self._shared_out:
                self._own[number] = self._pool.submit(self._read, number)
        if not (self._config.balance and self._world.size > 1):
            return self._own.pop(step).result()
        # Which rows a rank gets hangs on the costs of all ranks' rows. These are exchanged a step ahead, so that the
        # rows that come from other ranks are read in the background too.
        for number in range(step, min(step + 2, self._config.num_steps)):
            if number in self._own:
                self._shared_out[number] = self._balanced(number, self._own.pop(number))
        return self._shared_out.pop(step).result()

    def _read(self, step: int) -> Batch:
        world = self._world
        return self._windows.batch(step, rows=self._rows, rank=world.rank, world_size=world.size)

    def _balanced(self, step: int, own: Future[Batch]) -> Future[Batch]:
        """Exchange this rank's rows of a step for others of the step, so that all ranks have about the same work."""
        failed = own.exception() is not None
        costs = [math.nan] * self._rows if failed else self._costs(own.result())
        if costs is None:
            return own
        # A rank that could not read its rows says so by numbers that are none: it stops at this step and not before,
        # and until then all ranks take part in the same exchanges.
        costs_of_all = self._world.gather(costs)
        if any(math.isnan(cost) for cost in costs_of_all):
            return own
        accumulation = self._config.accumulation
        parts = accumulation if self._rows % accumulation == 0 else 1
        shares = share_out(costs_of_all, ranks=self._world.size, parts=parts)
        first = step * self._rows * self._world.size
        return self._pool.submit(self._windows.rows, [first + row for row in shares[self._world.rank]])

    def close(self) -> None:
        """End the threads; reads that are under way are waited for, others are given up."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
