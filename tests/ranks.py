"""Several ranks in forked processes, each with gloo, for tests that compare them; forking saves the imports."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo
import torch.distributed as dist
from torch import multiprocessing

from blt.distributed import World

PATIENCE_SECONDS = 200


def run_ranks(size: int, work: Callable[[World], None], folder: Path) -> None:
    """Run `work` on every rank; an assertion says what ranks that failed have raised.

    Args:
        size: number of ranks.
        work: what each runs; what it returns is lost, so that it writes files.
        folder: where the ranks meet; made if it is missing, and used once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_run, args=(rank, size, work, folder)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_SECONDS)
    hung = [process for process in processes if process.is_alive()]
    for process in hung:
        process.kill()
    said = "\n".join(path.read_text() for path in sorted(folder.glob("failure-*.txt")))
    assert not said, said
    assert not hung, f"{len(hung)} ranks hang"
    assert [process.exitcode for process in processes] == [0] * size


def _run(rank: int, size: int, work: Callable[[World], None], folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    try:
        work(World(rank=rank, size=size))
    except BaseException:
        (folder / f"failure-{rank}.txt").write_text(traceback.format_exc())
        raise
    dist.destroy_process_group()
