"""Law 5, over ranks: 1 rank = 2 = 4, within rounding, however the ranks share the work.

    python tests/laws/test_ranks.py        every way × optimiser × accumulation × model, some minutes

The suite runs those that differ most, all of one number of ranks in one launch.
"""

import itertools
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import pytest
import torch
from checks_training import THAWING, losses, new_trainer

from blt.ops import muon
from blt.training import Stopped, monitor, parallelize, read_ahead, sharding, table_shards
from ranks import run_ranks

DDP, FSDP, HYBRID = {"parallel": "ddp"}, {"parallel": "fsdp"}, {"parallel": "fsdp", "shards": 2}
CHOSEN = {
    2: {
        "ddp": ({"stage": "uneven blt", "accumulation": 2}, DDP),
        "ddp sparse thawing muon": ({"stage": "sparse blt", "optimizer": "muon", "parts": THAWING}, DDP),
        "fsdp muon": ({"stage": "blt", "optimizer": "muon"}, FSDP),
        "fsdp entropy": ({"stage": "entropy", "accumulation": 2}, FSDP | {"recompute": True}),
    },
    4: {
        "ddp sparse": ({"stage": "sparse blt"}, DDP),
        "fsdp sparse thawing": ({"stage": "sparse blt", "parts": THAWING}, FSDP),
        "fsdp with replicas": ({"stage": "uneven blt", "optimizer": "muon", "accumulation": 2}, HYBRID),
    },
}
ALL = {
    f"{stage} {optimizer} {accumulation} {name}": (
        {"stage": stage, "optimizer": optimizer, "accumulation": accumulation} | parts,
        way,
    )
    for stage, optimizer, accumulation, (name, way) in itertools.product(
        ("entropy", "blt", "wide blt", "uneven blt", "sparse blt"),
        ("adamw", "muon"),
        (1, 2),
        {"ddp": DDP, "fsdp": FSDP, "hybrid": HYBRID}.items(),
    )
    for parts in ({}, *([{"parts": THAWING}] if stage == "sparse blt" else []))
}


def check(configurations, sizes, root):
    """Compare the losses and gradient norms of all steps with those of one process."""
    for name, (what, _) in configurations.items():
        new_trainer(root / name / "1", **what).run()
    for size in sizes:

        def work(world):
            for name, (what, way) in configurations.items():
                fields = way | {"checkpoint_every": 100}
                new_trainer(root / name / str(world.size), world=world, loop=fields, **what).run()

        run_ranks(size, work, root / f"meeting-{size}")
    differing = []
    for name, size in itertools.product(configurations, sizes):
        wanted, found = (torch.tensor(losses(root / name / str(number))) for number in (1, size))
        assert len(wanted) == 6
        if not torch.allclose(found, wanted, rtol=2e-5, atol=2e-5):
            differing.append((name, size, (found - wanted).abs().max().item()))
    assert not differing


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    monkeypatch.setattr(monitor, "can_draw", lambda: False)


@pytest.fixture(autouse=True)
def _muon_in_float32(monkeypatch):
    """Round alike in all stacks: products of bfloat16 are summed in another order in a stack of another size."""
    monkeypatch.setattr(muon, "fast_matmul_dtype", lambda device: torch.float32)


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_train_what_one_process_trains(tmp_path, size):
    check(CHOSEN[size], [size], tmp_path)


def go_on(folder, what, way, *, sizes):
    """Train a stage by these numbers of ranks in turn, each for a third of the steps."""
    for size, stop_after in zip(sizes, (2, 4, None), strict=True):

        def work(world, stop_after=stop_after):
            trainer = new_trainer(folder, world=world, loop=way, stop_after=stop_after, **what)
            with pytest.raises(Stopped) if stop_after else nullcontext():
                trainer.run()

        run_ranks(size, work, folder / f"meeting-{stop_after}")


@pytest.mark.parametrize("sizes", [(2, 1, 4), (4, 2, 1)])
def test_any_number_of_ranks_goes_on_from_the_checkpoint_of_any_other(tmp_path, sizes):
    muon = {"stage": "uneven blt", "optimizer": "muon"}
    sparse = {"stage": "sparse blt", "parts": THAWING, "accumulation": 2}
    for what, way in ((muon, FSDP), (sparse, FSDP if sizes[0] == 4 else DDP)):
        name = what["stage"]
        new_trainer(tmp_path / "whole" / name, **what).run()
        go_on(tmp_path / name, what, way, sizes=sizes)
        wanted, found = (torch.tensor(losses(tmp_path / folder)) for folder in (f"whole/{name}", name))
        assert len(found) == 6
        torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-5)


def that_averages_buckets(monkeypatch):
    honest = parallelize._sum_bucket

    def average(bucket):
        return honest(bucket).then(lambda future: future.value() / 2)

    monkeypatch.setattr(parallelize, "_sum_bucket", average)
    return "ddp"


def that_averages_shards(monkeypatch):
    monkeypatch.setattr(sharding.FSDPModule, "set_gradient_divide_factor", lambda *_: None)
    return "fsdp muon"


def that_forgets_sparse_rows(monkeypatch):
    monkeypatch.setattr(parallelize, "sum_rows", lambda gradient: gradient)
    return "ddp sparse thawing muon"


def that_exchanges_no_columns(monkeypatch):
    honest = table_shards.join_columns
    monkeypatch.setattr(table_shards, "join_columns", lambda columns, **others: honest(columns.flip(0), **others))
    return "fsdp muon"


def that_does_not_notice_a_thaw(monkeypatch):
    honest = parallelize.Replicated.begin_step
    monkeypatch.setattr(
        parallelize.Replicated, "begin_step", lambda sharing: None if sharing._trained else honest(sharing)
    )
    return "ddp sparse thawing muon"


def that_gives_a_row_twice(monkeypatch):
    monkeypatch.setattr(read_ahead, "share_out", lambda costs, **others: [[0, 1], [1, 2]])
    return "ddp"


@pytest.mark.parametrize(
    "flaw",
    [
        that_gives_a_row_twice,
        that_averages_buckets,
        that_averages_shards,
        that_forgets_sparse_rows,
        that_exchanges_no_columns,
        that_does_not_notice_a_thaw,
    ],
)
def test_the_check_notices_a_way_of_sharing(tmp_path, monkeypatch, flaw):
    name = flaw(monkeypatch)
    with pytest.raises(AssertionError, match=name):
        check({name: CHOSEN[2][name]}, [2], tmp_path)


if __name__ == "__main__":
    monitor.can_draw = lambda: False
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        check(ALL, [2, 4], Path(folder))
    print(f"{len(ALL)} ways: 1 = 2 = 4 ranks")
