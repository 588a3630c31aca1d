import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.data.mixture import Mixture
from blt.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("without_shape_checks")  # no tensor is here
weights = st.lists(st.floats(0.001, 1000), min_size=1, max_size=6)


def served(mixture, count):
    return [mixture.locate(row) for row in range(count)]


@given(weights, st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_each_source_gives_its_rows_in_order_and_has_its_share_after_any_number(shares, count):
    mixture = Mixture(shares)
    counts = [0] * len(shares)
    for row, (source, number) in enumerate(served(mixture, count), 1):
        assert number == counts[source]
        counts[source] += 1
        for share, had in zip(shares, counts, strict=True):
            assert abs(had - row * share / sum(shares)) <= max(1, len(shares) - 1)
    assert mixture.num_rows is None


@given(st.data(), st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_a_source_that_has_had_all_its_rows_leaves_the_rest_to_the_others(data, num_sources):
    shares = data.draw(st.lists(st.floats(0.01, 10), min_size=num_sources, max_size=num_sources))
    limits = data.draw(st.lists(st.integers(1, 40), min_size=num_sources, max_size=num_sources))
    mixture = Mixture(shares, limits=limits)
    assert mixture.num_rows == sum(limits)
    assert sorted(served(mixture, sum(limits))) == [(k, n) for k, limit in enumerate(limits) for n in range(limit)]
    with pytest.raises(ConfigurationError, match=f"the sources have {sum(limits):,} rows"):
        mixture.locate(sum(limits))


def test_one_source_without_a_limit_goes_on_alone():
    mixture = Mixture([3.0, 1.0, 1.0], limits=[6, None, 1])
    sources = [source for source, _ in served(mixture, 40)]
    assert sources.count(0) == 6
    assert sources.count(2) == 1
    assert set(sources[10:]) == {1}
    assert mixture.locate(10**15)[0] == 1
    assert mixture.locate(10**15)[1] == 10**15 - 7


def test_shares_are_exact_far_out():
    mixture = Mixture([0.7, 0.2, 0.1])
    source, number = mixture.locate(10**15)
    share = (0.7, 0.2, 0.1)[source]
    assert math.isclose(number, share * 10**15, rel_tol=1e-14)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_weights_that_are_none_are_refused(bad):
    with pytest.raises(ConfigurationError, match=r"weight: .*; above 0, and finite"):
        Mixture([1.0, bad])


def test_what_has_no_rows_is_refused():
    with pytest.raises(ConfigurationError, match="limit: 0; at least one row"):
        Mixture([1.0], limits=[0])
    with pytest.raises(ConfigurationError, match="expected at least one"):
        Mixture([])
    with pytest.raises(ConfigurationError, match="row: -1; 0 or more"):
        Mixture([1.0]).locate(-1)
