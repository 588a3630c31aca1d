import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.data import order
from blt.data.order import NUM_ROUNDS, keyed_order, raw_bits
from blt.errors import ConfigurationError


def keys_of(seed, epoch=0, source=0):
    return raw_bits(NUM_ROUNDS, seed=seed, epoch=epoch, source=source)


def whole(size, keys):
    return keyed_order(np.arange(size), size=size, keys=keys)


@given(st.integers(1, 700), st.integers(0, 2**70), st.integers(0, 2**40))
@settings(max_examples=100, deadline=None)
def test_every_number_stands_at_one_place(size, seed, epoch):
    assert sorted(whole(size, keys_of(seed, epoch)).tolist()) == list(range(size))


def check_bijection(size):
    assert sorted(whole(size, keys_of(0)).tolist()) == list(range(size))


@pytest.mark.parametrize("size", [2**12, 2**12 + 1, 2**13 - 1])
def test_sizes_beside_powers_of_two_are_permuted_too(size):
    check_bijection(size)


def test_any_mixing_gives_a_bijection_and_the_check_notices_what_is_none(monkeypatch):
    honest = order._mixed
    monkeypatch.setattr(order, "_mixed", lambda values, key: honest(values >> np.uint64(1), key))
    check_bijection(128)  # any function of the other half gives a bijection
    monkeypatch.setattr(order, "_permute", lambda values, *, num_bits, keys: honest(values, keys[0]) % (1 << num_bits))
    with pytest.raises(AssertionError):
        check_bijection(128)


@given(st.integers(1, 2**60), st.integers(0, 5), st.data())
@settings(max_examples=100, deadline=None)
def test_a_place_does_not_depend_on_what_is_asked_beside_it(size, seed, data):
    places = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=9))
    together = keyed_order(np.array(places), size=size, keys=keys_of(seed)).tolist()
    alone = [int(keyed_order(np.array([place]), size=size, keys=keys_of(seed))[0]) for place in places]
    assert together == alone
    assert all(0 <= found < size for found in together)


def test_orders_differ_by_seed_epoch_and_source():
    chosen = itertools.product(range(3), range(3), range(3))
    assert len({tuple(whole(40, keys_of(*each)).tolist()) for each in chosen}) == 27


@pytest.mark.parametrize("size", [3, 4])
def test_few_numbers_come_in_every_order_about_as_often(size):
    orders = list(itertools.permutations(range(size)))
    draws = 40 * len(orders)
    found = [tuple(whole(size, keys_of(1, epoch)).tolist()) for epoch in range(draws)]
    counts = np.array([found.count(each) for each in orders])
    chi_square = ((counts - 40) ** 2 / 40).sum()
    assert chi_square < len(orders) + 5 * np.sqrt(2 * len(orders))


def test_where_a_number_comes_to_lie_tells_nothing_of_where_its_neighbour_does():
    size = 5000
    places = whole(size, keys_of(3)).astype(float)
    for apart in (1, 2, 64, 71):
        assert abs(np.corrcoef(places, np.roll(places, apart))[0, 1]) < 5 / np.sqrt(size)
    for digit in range(12):
        bits = (places.astype(int) >> digit) & 1
        assert abs(np.corrcoef(bits, np.arange(size))[0, 1]) < 5 / np.sqrt(size)


def test_the_order_never_changes_between_versions():
    assert whole(12, keys_of(1, 2)).tolist() == OF_SEED_1_EPOCH_2
    assert keyed_order(np.array([0, 1, 10**10]), size=10**11 + 7, keys=keys_of(1, 2)).tolist() == OF_MANY


OF_SEED_1_EPOCH_2: list[int] = [6, 7, 2, 5, 11, 10, 0, 8, 1, 3, 9, 4]
OF_MANY: list[int] = [18506905035, 41640541101, 92523155330]


def test_places_outside_are_refused():
    for place in (-1, 7):
        with pytest.raises(ConfigurationError, match="places: expected 0 to 6"):
            keyed_order(np.array([place]), size=7, keys=keys_of(0))
