import random

import pytest

from blt.training.balance import share_out


@pytest.mark.parametrize(("ranks", "parts"), [(1, 1), (2, 1), (4, 1), (2, 2), (4, 4)])
def test_every_row_is_given_once_and_every_rank_gets_as_many(ranks, parts):
    rng = random.Random(0)
    costs = [rng.uniform(1, 3) for _ in range(48)]
    shares = share_out(costs, ranks=ranks, parts=parts)
    assert sorted(row for share in shares for row in share) == list(range(48))
    assert {len(share) for share in shares} == {48 // ranks}


def spread(costs, shares):
    totals = [sum(costs[row] for row in share) for share in shares]
    return max(totals) / (sum(totals) / len(totals)) - 1


def test_ranks_get_about_the_same_cost_in_all_and_in_each_part():
    rng = random.Random(0)
    costs = [rng.choice([1.0, 1.2, 2.5]) * rng.uniform(0.9, 1.1) for _ in range(64)]
    in_order = [list(range(16 * rank, 16 * rank + 16)) for rank in range(4)]
    shares = share_out(costs, ranks=4, parts=2)
    assert spread(costs, shares) < 0.01 < 0.05 < spread(costs, in_order)
    for part in (slice(0, 8), slice(8, 16)):
        assert spread(costs, [share[part] for share in shares]) < 0.03


def test_rows_of_equal_cost_are_shared_out_by_their_numbers_alone():
    shares = share_out([1.0] * 8, ranks=2, parts=2)
    assert share_out([3.0] * 8, ranks=2, parts=2) == shares  # every rank computes it, and all must find the same
    assert sorted(row for share in shares for row in share) == list(range(8))
    assert [len(share) for share in shares] == [4, 4]
