"""Many ranks of which one runs: collectives return at once, with whatever is in the tensors (fake process group)."""

import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import multiprocessing
from torch.testing._internal.distributed.fake_pg import FakeStore

from blt.distributed import World
from blt.training import parallelize, sharded_checkpoints, sharding


class _SavesNothing:
    """In place of the one who writes checkpoints, which needs a group of real processes."""

    def __init__(self, world: World) -> None:
        self.world = world


def as_one_of(size: int, work: Callable[[World], Any], folder: Path, *, rank: int = 0) -> Any:
    """Run `work` in a process of its own as one of so many ranks, and return what it returns, by way of JSON."""
    folder.mkdir(parents=True, exist_ok=True)

    def run() -> None:
        sharding.Saver = sharded_checkpoints.Saver = _SavesNothing
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
        try:
            (folder / "found.json").write_text(json.dumps(work(World(rank=rank, size=size))))
        except BaseException:
            (folder / "failure.txt").write_text(traceback.format_exc())
            raise

    assert parallelize.Replicated  # what DDP needs is imported before the fork
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(200)
    process.kill()
    failure = folder / "failure.txt"
    assert not failure.exists(), failure.read_text()
    return json.loads((folder / "found.json").read_text())
