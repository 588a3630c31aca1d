"""Caches show what the patterns over whole rows would show."""

import pytest
import torch

from blt.nn import (
    CausalPattern,
    GrowingCache,
    LocalConfig,
    Recording,
    TransformerConfig,
    WindowCache,
    WindowPattern,
    run_positions,
)

WINDOW, LENGTH = 5, 23
LOCAL = LocalConfig(dim=12, num_layers=2, num_heads=3, window=WINDOW)
WHOLE = TransformerConfig(dim=12, num_layers=2, num_heads=3)
SEGMENTS = torch.tensor([[0] * 23, [0] * 4 + [1] * 2 + [2] * 17, [0] * 22 + [1]])


def layer_inputs(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give queries, keys and values, B T H E."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*SEGMENTS.shape, 3, 4, generator=generator) for _ in range(3))


INPUTS = (layer_inputs(0), layer_inputs(1))  # of the two layers


def new_cache(kind):
    return WindowCache(LOCAL, batch=3, like=torch.zeros(1)) if kind == "window" else growing(batch=3)


def growing(*, batch):
    return GrowingCache(WHOLE, batch=batch, like=torch.zeros(1), num_slots=2)


def pattern(kind):
    return WindowPattern(SEGMENTS, window=WINDOW) if kind == "window" else CausalPattern(SEGMENTS)


def starts_at(time):
    return SEGMENTS[:, time] != SEGMENTS[:, max(0, time - 1)]


@pytest.fixture(params=["window", "growing"])
def kind(request):
    return request.param


def test_a_cache_fed_one_position_at_a_time_shows_each_layer_what_its_pattern_shows(kind):
    cache, expected = new_cache(kind), [pattern(kind)(*layer) for layer in INPUTS]
    for time in range(LENGTH):
        cache.restart(starts_at(time))
        place = cache.advance()
        assert torch.equal(place.positions, run_positions(SEGMENTS)[:, time : time + 1])
        for attend, layer, whole in zip(cache.attends(place), INPUTS, expected, strict=True):
            found = attend(*(part[:, time : time + 1] for part in layer))
            torch.testing.assert_close(found, whole[:, time : time + 1])


def test_rows_that_step_by_themselves_see_what_they_would_see_together(kind):
    cache, expected = new_cache(kind), pattern(kind)(*INPUTS[0])
    times = [0, 0, 0]
    for turn in range(60):
        rows = torch.tensor([row for row in range(3) if turn % (row + 2) == 0 and times[row] < LENGTH])
        if not len(rows):
            continue
        now = torch.tensor([times[row] for row in rows])
        cache.restart(torch.tensor([bool(row in rows) and bool(starts_at(times[row])[row]) for row in range(3)]))
        found = cache.attends(cache.advance(rows))[0](*(part[rows, now][:, None] for part in INPUTS[0]))
        torch.testing.assert_close(found[:, 0], expected[rows, now])
        for row in rows.tolist():
            times[row] += 1
    assert min(times) >= 15  # so that every window has wrapped


@pytest.mark.parametrize("lengths", [(1, 1, 1), (5, 6, 22), (12, 4, 10)])
def test_a_filled_cache_goes_on_as_one_that_was_fed_step_by_step(kind, lengths):
    cache, expected, recording = new_cache(kind), pattern(kind)(*INPUTS[1]), Recording(pattern(kind))
    for layer in INPUTS:
        recording(*layer)
    last = torch.tensor(lengths)[:, None] - 1
    belongs = (torch.arange(LENGTH) <= last) & (SEGMENTS.gather(1, last) == SEGMENTS)
    cache.fill(recording.layers, positions=run_positions(SEGMENTS), belongs=belongs)
    rows, now = torch.arange(3), last[:, 0] + 1
    cache.restart(SEGMENTS[rows, now] != SEGMENTS[rows, now - 1])
    found = cache.attends(cache.advance())[1](*(part[rows, now][:, None] for part in INPUTS[1]))
    torch.testing.assert_close(found[:, 0], expected[rows, now])


def test_rows_can_be_selected_and_appended_at_positions_and_sizes_of_their_own():
    together, alone = growing(batch=1), growing(batch=2)
    queries, keys, values = INPUTS[0]
    for time in range(9):
        together.attends(together.advance())[0](*(part[:1, time, None] for part in INPUTS[0]))
    for time in range(3):
        alone.attends(alone.advance())[0](*(part[1:, time, None] for part in INPUTS[0]))
    together.append(alone)
    together.select(torch.tensor([2, 0]))
    assert together.newest.tolist() == [2, 8]
    rows, now = torch.tensor([2, 0]), torch.tensor([3, 9])
    found = together.attends(together.advance())[0](*(part[rows, now][:, None] for part in (queries, keys, values)))
    torch.testing.assert_close(found[:, 0], CausalPattern(torch.zeros_like(SEGMENTS))(*INPUTS[0])[rows, now])
