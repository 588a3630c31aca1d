import json
import multiprocessing
import os
import random
import signal
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import pytest

import blt.data.prepare_ranks
from blt.data import PrepareConfig, Shards, prepare
from blt.data.join_parts import cut
from blt.data.prepare_run import PrepareRun
from blt.data.shard import Shard
from blt.data.shard_folder import ShardFolder
from blt.distributed import World
from blt.errors import DataError
from ranks import run_ranks

NUM_INPUTS = 7


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def inputs(tmp_path):
    """Inputs of very unequal sizes, one of them with empty documents only, one with a document above a shard's size."""
    rng = random.Random(0)
    names = []
    for number in range(NUM_INPUTS):
        path = tmp_path / f"{number}.jsonl"
        stories = [f"story {number} {at} " + "x" * rng.randrange(60) for at in range((number * 37) % 90 + 3)]
        stories += ["y" * 1500] if number == 4 else []
        stories = [""] * 3 if number == 2 else stories
        path.write_text("".join(json.dumps({"text": story}) + "\n" for story in stories))
        names.append(str(path))
    return tuple(names)


def config_of(inputs, out, **options):
    return PrepareConfig(**{"inputs": inputs, "out": str(out), "validation": 0.2, "shard_bytes": 1000} | options)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_is_the_same_byte_for_byte_for_any_number_of_ranks(tmp_path, inputs):
    prepare(config_of(inputs, tmp_path / "out-1"))
    expected = contents(tmp_path / "out-1")
    assert len(expected) > 15
    for size in (2, 4):
        out = tmp_path / f"out-{size}"

        def work(world, out=out):
            summary = prepare(config_of(inputs, out), world=world)
            assert summary.splits["train"]["num_documents"] > 100
            assert summary.splits["train"]["checksum"] == Shards.open(out).checksum

        run_ranks(size, work, tmp_path / f"ranks-{size}")
        assert contents(out) == expected
        assert sorted(path.name for path in tmp_path.glob(".out*")) == []

        def again(world, out=out):
            assert prepare(config_of(inputs, out), world=world).was_already_prepared

        run_ranks(size, again, tmp_path / f"again-{size}")
        assert contents(out) == expected
        assert sorted(path.name for path in tmp_path.glob(".out*")) == []


def ranks_until_one_ends(size, work, folder):
    """Run ranks until one ends, then end the others, as torchrun does; return how it ended."""
    folder.mkdir()
    fork = multiprocessing.get_context("fork")

    def enter(rank):
        import torch.distributed as dist

        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
        work(World(rank=rank, size=size))

    processes = [fork.Process(target=enter, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    ready = wait([process.sentinel for process in processes], timeout=120)
    ended = [process for process in processes if process.sentinel in ready]
    for process in processes:
        process.kill()
        process.join(60)
    return [process.exitcode for process in ended]


def kill_at(monkeypatch, owner, name, *, rank, calls):
    """Let a rank kill itself in the midst of the n-th call of a function."""
    real = getattr(owner, name)
    count = [0]

    def arm(world):
        if world.rank != rank:
            return

        def counted(*arguments, **options):
            count[0] += 1
            result = real(*arguments, **options)
            if count[0] == calls:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        monkeypatch.setattr(owner, name, counted)

    return arm


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [(PrepareRun, "_append", 40), (blt.data.prepare_ranks, "write_shard", 2), (PrepareRun, "finish", 1)],
)
@pytest.mark.parametrize("then", [1, 3])
def test_a_run_whose_rank_was_killed_goes_on_with_any_number_of_ranks(
    tmp_path, inputs, monkeypatch, owner, name, calls, then
):
    prepare(config_of(inputs, tmp_path / "whole"))
    expected = contents(tmp_path / "whole")
    with monkeypatch.context() as patch:
        arm = kill_at(patch, owner, name, rank=1, calls=calls)

        def work(world):
            arm(world)
            prepare(config_of(inputs, tmp_path / "out"), world=world)

        assert ranks_until_one_ends(2, work, tmp_path / "killed") == [-signal.SIGKILL]
    assert not (tmp_path / "out").exists()
    unfinished = tmp_path / ".out.unfinished"
    parts = {path: path.stat().st_mtime_ns for path in unfinished.glob("parts/*/part.json")}
    joined = set(unfinished.glob("joined/*"))
    assert (name == "write_shard") == bool(joined)
    assert len(parts) < NUM_INPUTS or name == "write_shard"

    def go_on(world):
        written = []
        real = PrepareRun.write
        monkeypatch.setattr(PrepareRun, "write", lambda run, *rest: (written.append(1), real(run, *rest)))
        prepare(config_of(inputs, tmp_path / "out"), world=world)
        assert world.sum(len(written)) == NUM_INPUTS - len(parts)  # what was whole is not read again

    if then == 1:
        go_on(World())
    else:
        run_ranks(then, go_on, tmp_path / "then")
    assert contents(tmp_path / "out") == expected


def test_what_was_begun_with_other_settings_or_by_one_process_is_dropped(tmp_path, inputs, monkeypatch):
    prepare(config_of(inputs, tmp_path / "whole"))

    def stop(run, document):
        raise KeyboardInterrupt

    for options, size in (({"seed": 3}, 2), ({}, 1)):
        with monkeypatch.context() as patch:
            patch.setattr(PrepareRun, "_append", stop)

            def begin(world, options=options, size=size):
                with pytest.raises(KeyboardInterrupt):
                    prepare(config_of(inputs, tmp_path / f"out-{size}", **options), world=world)

            begin(World()) if size == 1 else run_ranks(size, begin, tmp_path / "begun")
        assert (tmp_path / f".out-{size}.unfinished").is_dir()

        def work(world, size=size):
            prepare(config_of(inputs, tmp_path / f"out-{size}"), world=world)

        run_ranks(2, work, tmp_path / f"ranks-{size}")
        assert contents(tmp_path / f"out-{size}") == contents(tmp_path / "whole")


def test_a_bad_input_is_told_by_the_rank_that_reads_it(tmp_path, inputs):
    Path(inputs[5]).write_text("{")

    def work(world):
        with pytest.raises(DataError, match=r"5.jsonl: line 1 is not JSON"):
            prepare(config_of(inputs, tmp_path / "out"), world=world)
        os._exit(5)

    assert ranks_until_one_ends(2, work, tmp_path / "ranks") == [5]
    assert not (tmp_path / "out").exists()


def refuse_pipe(world):
    with pytest.raises(
        DataError, match=r"can be read only once, and there are several processes; give files, or start"
    ):
        prepare(PrepareConfig(inputs=("-",), out=str(Path.cwd() / "out")), world=world)


def test_what_can_be_read_only_once_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_ranks(2, refuse_pipe, tmp_path / "ranks")


def apart(world):
    out = Path.cwd() / str(world.rank) / "out"
    with pytest.raises(DataError, match="is not the same folder for all processes; choose an --out on a file system"):
        prepare(PrepareConfig(inputs=(str(Path.cwd() / "a.txt"),), out=str(out)), world=world)


def test_ranks_that_do_not_see_the_same_folder_say_so(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a story")
    monkeypatch.chdir(tmp_path)
    run_ranks(2, apart, tmp_path / "ranks")


class _Part(ShardFolder):
    """A part of one shard, by the lengths of its documents."""

    def __init__(self, lengths):
        self.table = [None]
        self.ends = np.cumsum(lengths)

    def whole_shard(self, number: int) -> Shard:
        return Shard(text=np.zeros(int(self.ends[-1]), np.uint8), ends=self.ends)


def test_shards_are_cut_where_one_process_would():
    rng = random.Random(0)
    for _ in range(200):
        parts = [[rng.choice([1, 5, 30, 120]) for _ in range(rng.randint(1, 9))] for _ in range(rng.randint(1, 4))]
        shards, open_bytes = [], None
        for length in [length for part in parts for length in part]:
            if open_bytes is None or open_bytes + length > 100:
                shards.append([])
                open_bytes = 0
            shards[-1].append(length)
            open_bytes += length
        found = cut([_Part(part) for part in parts], shard_bytes=100)
        got = [[parts[p.part][at] for p in pieces for at in p.documents] for pieces in found]
        assert got == shards
        assert [sum(p.num_bytes for p in pieces) for pieces in found] == [sum(shard) for shard in shards]
