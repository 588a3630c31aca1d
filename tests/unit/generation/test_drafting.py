import pytest

from blt.errors import ConfigurationError
from blt.generation.drafting import DraftConfig, Drafter


@pytest.mark.parametrize(("by", "least"), [("decoder", 0.4), ("entropy", 0.8)])
def test_the_least_probability_follows_from_who_guesses_unless_it_is_given(by, least):
    assert DraftConfig(by=by).least_probability == least
    assert DraftConfig(by=by, min_probability=0.0).least_probability == 0.0


@pytest.mark.parametrize("least", [-0.1, 1.1])
def test_a_least_probability_is_one(least):
    with pytest.raises(ConfigurationError, match=f"min_probability: from 0 to 1, got {least}"):
        DraftConfig(min_probability=least)


def test_guesses_reach_further_while_they_are_right_and_less_far_after_wrong_ones():
    drafter = Drafter(DraftConfig(max_draft=8))
    for drafted, right, ahead in [
        (8, 3, 7),
        (7, 0, 6),
        (6, 6, 8),
        (8, 8, 8),
        (0, 0, 8),
        *[(1, 0, n) for n in (7, 6, 5)],
    ]:
        drafter.note(drafted=drafted, right=right)
        assert drafter.num_ahead == ahead
    for _ in range(9):
        drafter.note(drafted=5, right=0)
    assert drafter.num_ahead == 1
