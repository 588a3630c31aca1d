"""Caches against the patterns that they stand for; that whole models agree is a law of its own."""

import numpy as np
import pytest
import torch

from blt.nn import (
    CausalPattern,
    KeyValueCache,
    LocalConfig,
    RowInputs,
    StepInputs,
    TransformerConfig,
    WindowPattern,
)

WHOLE = TransformerConfig(dim=8, num_layers=1, num_heads=2)
LOCAL = LocalConfig(dim=8, num_layers=1, num_heads=2, window=3)
CPU = torch.device("cpu")


def cache_and_pattern(kind, *, batch, length):
    segments = torch.zeros(batch, length, dtype=torch.long)
    if kind == "window":
        return KeyValueCache(LOCAL, batch=batch, like=torch.empty(0), max_rollback=4), WindowPattern(segments, window=3)
    return KeyValueCache(WHOLE, batch=batch, like=torch.empty(0), max_rollback=4), CausalPattern(segments)


def heads(batch, length):
    return tuple(torch.randn(batch, length, 2, 4) for _ in range(3))


def read(cache, parts, first, last, *, rows=None):
    """Feed positions first to last of every row at once, and give what they gather, B T H E."""
    batch, count = len(parts[0]), last - first
    numbers = np.arange(batch) if rows is None else rows
    positions = np.tile(np.arange(first, last), batch)
    inputs = StepInputs.of(numbers.repeat(count), positions, np.full(batch * count, last - 1), device=CPU)
    flat = (part[:, first:last].reshape(batch * count, 1, 2, 4) for part in parts)
    return cache.attends(inputs, None)(0)(*flat).view(batch, count, 2, 4)


@pytest.mark.parametrize("kind", ["window", "whole"])
@pytest.mark.parametrize("at_once", [1, 3, 4])
def test_steps_gather_what_the_pattern_gathers(kind, at_once):
    cache, pattern = cache_and_pattern(kind, batch=3, length=36)
    parts = heads(3, 36)
    found = [read(cache, parts, first, first + at_once) for first in range(0, 36, at_once)]
    torch.testing.assert_close(torch.cat(found, dim=1), pattern(*parts))


@pytest.mark.parametrize("kind", ["window", "whole"])
def test_what_was_read_in_vain_is_not_seen_once_it_is_read_again(kind):
    cache, pattern = cache_and_pattern(kind, batch=2, length=20)
    parts = heads(2, 20)
    wrong = tuple(part.flip(1) for part in parts)
    for first in range(20):
        read(cache, wrong, first, min(first + 4, 20))
        torch.testing.assert_close(read(cache, parts, first, first + 1), pattern(*parts)[:, first : first + 1])


@pytest.mark.parametrize("kind", ["window", "whole"])
def test_a_filled_cache_goes_on_as_one_that_was_fed_step_by_step(kind):
    cache, pattern = cache_and_pattern(kind, batch=2, length=40)
    parts = heads(2, 40)
    positions = torch.arange(40).expand(2, -1)
    rows = RowInputs(torch.zeros_like(positions), positions, torch.arange(2), positions < 37)
    expected = cache.attends(rows, pattern)(0)(*parts)
    assert torch.equal(expected, pattern(*parts))
    torch.testing.assert_close(read(cache, parts, 37, 40), expected[:, 37:])


def test_rows_that_are_added_start_empty_and_leave_the_others_alone():
    cache, pattern = cache_and_pattern("whole", batch=2, length=6)
    parts = heads(2, 6)
    first = read(cache, parts, 0, 3)
    cache.add_rows(1)
    other = heads(1, 6)
    alone = read(cache, other, 0, 3, rows=np.array([2]))
    torch.testing.assert_close(torch.cat([first, read(cache, parts, 3, 6)], dim=1), pattern(*parts))
    torch.testing.assert_close(alone, CausalPattern(torch.zeros(1, 3, dtype=torch.long))(*(p[:, :3] for p in other)))


def test_a_ring_takes_constant_memory_and_a_growing_cache_doubles():
    ring, _ = cache_and_pattern("window", batch=1, length=1)
    growing, _ = cache_and_pattern("whole", batch=1, length=1)
    before = ring.nbytes()
    for longest in (10, 100, 1000):
        ring.make_room(longest)
        growing.make_room(longest)
    assert ring.nbytes() == before
    assert 1000 < growing.num_slots <= 2048
