"""What helps where memory does not suffice."""

from dataclasses import replace

import pytest

from blt.errors import ConfigurationError
from blt.model import preset
from blt.planning import Workload, estimate, fastest, machine, ways_to_fit

H100, CARD = machine("h100-sxm"), machine("rtx-4090")
LARGE = Workload(model=preset("blt-8b"), batch_size=4096, sequence_length=4096)


def applied(change, workload):
    return replace(workload, **change.fields)


def test_what_fits_needs_no_change():
    small = Workload(model=preset("tiny"))
    assert estimate(small, H100, ranks=1).fits
    assert [change.fields for change in ways_to_fit(small, H100, ranks=1)] == [{}]


def test_a_batch_that_is_too_large_is_accumulated():
    workload = Workload(model=preset("tinystories-55m"), batch_size=512, sequence_length=2048)
    assert not estimate(workload, CARD, ranks=1).fits
    (change,) = ways_to_fit(workload, CARD, ranks=1)
    assert change.fields.keys() == {"accumulation"}
    assert str(change) == f"--blt.loop.accumulation {change.fields['accumulation']}"
    assert estimate(applied(change, workload), CARD, ranks=1).fits


@pytest.mark.parametrize("ranks", [8, 64])
def test_weights_that_are_too_large_are_divided(ranks):
    assert not estimate(LARGE, H100, ranks=ranks).fits
    changes = ways_to_fit(LARGE, H100, ranks=ranks)
    assert changes[0].fields["parallel"] == "fsdp"
    assert changes[0].estimate.ranks == ranks
    for change in changes:
        found = estimate(applied(change, LARGE), H100, ranks=change.estimate.ranks)
        assert found.fits
        assert found == change.estimate
    if len(changes) == 2:  # on more ranks, fewer fields suffice
        assert changes[1].estimate.ranks > ranks
        assert len(changes[1].fields) < len(changes[0].fields)


def test_more_ranks_are_told_where_as_many_never_suffice():
    (change, *_) = ways_to_fit(LARGE, CARD, ranks=4)
    assert change.estimate.ranks > 4
    assert change.estimate.fits
    assert not any(fastest(LARGE, CARD, ranks=4, parallel=way).fits for way in ("ddp", "fsdp"))


def test_nothing_helps_where_one_row_of_one_layer_is_too_large():
    assert ways_to_fit(LARGE, replace(CARD, memory=1e8), ranks=8) == []


def test_the_fastest_fits_if_anything_does_and_needs_the_least_otherwise():
    found = fastest(LARGE, H100, ranks=64, parallel="fsdp")
    assert found.fits
    for shards in (None, 8, 16, 32):
        for accumulation in (1, 4, 16, 64):
            other = estimate(replace(LARGE, parallel="fsdp", shards=shards, accumulation=accumulation), H100, ranks=64)
            assert not other.fits or found.step_seconds() <= 1.011 * other.step_seconds()
    assert not fastest(LARGE, H100, ranks=64, parallel="ddp").fits


def test_a_batch_without_a_row_for_each_rank_is_refused():
    with pytest.raises(ConfigurationError, match="batch_size: 4,096 is no multiple of 8,192 ranks"):
        fastest(LARGE, H100, ranks=8192, parallel="ddp")
