import threading

import numpy as np
import pytest
import torch

from blt.data import Shards, Windows
from blt.distributed import World
from blt.errors import DataError
from blt.training.read_ahead import STEPS_AHEAD, ReadAhead
from ranks import run_ranks
from tiny_objective import loop

SHARDS = Shards.from_documents([f"document {number} {'x' * (number % 40)}".encode() for number in range(200)])
STEPS = 9


def no_costs(batch):
    return None


def costs_of(batch):
    return batch.byte_ids.double().sum(1).tolist()


def new_windows():
    return Windows(SHARDS, sequence_length=16, seed=0)


def reader_of(windows, *, world=None, costs=no_costs, rows=4, **fields):
    config = loop(num_steps=STEPS, batch_size=rows, sequence_length=16, **fields)
    return ReadAhead(windows, config, world=world or World(), costs=costs)


def same(one, other):
    return torch.equal(one.byte_ids, other.byte_ids) and torch.equal(one.numbers, other.numbers)


def test_batches_are_those_of_the_steps_from_any_step_on():
    for first in (0, 5):
        with reader_of(new_windows()) as reader:
            for step in range(first, STEPS):
                assert same(reader.take(step), new_windows().batch(step, rows=4))


class Gated(Windows):
    """Windows whose batches come only when they are let."""

    def __init__(self):
        super().__init__(SHARDS, sequence_length=16, seed=0)
        self.begun, self.gate = [], threading.Event()
        self.all_under_way = threading.Event()
        self.fails_at = None

    def batch(self, step, **options):
        self.begun.append(step)
        if len(self.begun) >= STEPS_AHEAD:
            self.all_under_way.set()
        assert self.gate.wait(60)
        if step == self.fails_at:
            raise DataError(f"step {step} cannot be read")
        return super().batch(step, **options)


def test_reads_of_the_next_steps_overlap_and_no_more_are_begun_than_there_is_room_for():
    gated = Gated()
    with reader_of(gated) as reader:
        waiting = threading.Thread(target=reader.take, args=(0,))
        waiting.start()
        assert gated.all_under_way.wait(60)  # all at once, though none has come back yet
        assert sorted(gated.begun) == list(range(STEPS_AHEAD))
        gated.gate.set()
        waiting.join(60)
        reader.take(1)
        assert max(gated.begun) <= STEPS_AHEAD
        for step in range(2, STEPS):
            reader.take(step)
    assert sorted(gated.begun) == list(range(STEPS))  # each once, and none after the last


def test_a_read_that_fails_is_told_at_its_own_step():
    gated = Gated()
    gated.fails_at = 3
    gated.gate.set()
    with reader_of(gated) as reader:
        for step in range(3):
            reader.take(step)
        with pytest.raises(DataError, match="step 3 cannot be read"):
            reader.take(3)


def take_and_interrupt(reader):
    with reader:
        reader.take(0)
        raise KeyboardInterrupt


def test_no_thread_is_left_when_a_run_ends_in_an_error():
    before = threading.active_count()
    gated = Gated()
    gated.gate.set()
    reader = reader_of(gated)
    with pytest.raises(KeyboardInterrupt):
        take_and_interrupt(reader)
    assert threading.active_count() == before
    assert len(gated.begun) <= STEPS_AHEAD


def compare_balanced(world):
    windows, spreads = new_windows(), np.zeros(2)
    with reader_of(windows, world=world, costs=costs_of, rows=8) as reader:
        for step in range(2, STEPS):
            got = reader.take(step)
            assert (step + 1 in reader._shared_out) == (step + 1 < STEPS)  # under way before it is asked for
            rows = [windows.batch(step, rows=4, rank=rank, world_size=2) for rank in range(2)]
            costs = [cost for batch in rows for cost in costs_of(batch)]
            numbers = got.numbers.tolist()
            assert same(got, windows.rows(numbers))
            everyone = world.gather([float(number) for number in numbers])
            assert sorted(everyone) == list(range(8 * step, 8 * step + 8))
            work = [sum(costs[int(number) - 8 * step] for number in part) for part in (everyone[:4], everyone[4:])]
            before = [sum(costs[:4]), sum(costs[4:])]
            spreads += abs(before[0] - before[1]), abs(work[0] - work[1])
    assert spreads[1] < spreads[0] / 2


def test_rows_that_are_exchanged_for_balance_are_read_ahead_too(tmp_path):
    run_ranks(2, compare_balanced, tmp_path / "ranks")


def fail_on_one_rank(world):
    gated = Gated()
    gated.gate.set()
    gated.fails_at = 3 if world.rank == 1 else None
    with reader_of(gated, world=world, costs=costs_of, rows=8) as reader:
        for step in range(3):
            reader.take(step)
            assert world.sum(1) == 2  # the exchanges of a step find each other
        if world.rank == 1:
            with pytest.raises(DataError, match="step 3 cannot be read"):
                reader.take(3)
        else:
            reader.take(3)


def test_a_rank_that_cannot_read_stops_at_that_step_and_the_others_exchange_as_usual_until_then(tmp_path):
    run_ranks(2, fail_on_one_rank, tmp_path / "ranks")
