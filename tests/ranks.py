"""Several ranks with gloo, for tests that compare them: forked, which saves the imports, or in new processes."""

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def environments(size: int) -> Iterator[list[dict[str, str]]]:
    """Yield the environment of each rank's process, as torchrun sets it.

    As torchrun's agent does, this process serves the store where the ranks meet, on a port that the system chose as it
    was bound: no other process can take it in between.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = os.environ | {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    yield [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


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
