"""What a model expects at every byte of a text."""

import numpy as np
import pytest

from blt.errors import ConfigurationError
from blt.evaluation.expectations import expected_bytes
from blt.patching import EntropyRule, SpaceRule

TEXT = "Zoë saw 魚 and ran.".encode() + b"\xff\xe2\x82"


@pytest.mark.parametrize("data", [TEXT, b"", b"a"])
def test_what_is_expected_agrees_with_the_score(tiny_lm, data):
    found, score = expected_bytes(tiny_lm, data), tiny_lm.score(data)
    assert np.allclose(-found.byte_logprobs() / np.log(2), score.bits_by_byte, rtol=1e-6)
    assert found.data == data


def test_alternatives_are_the_likeliest_bytes_and_the_end(tiny_lm):
    expected = expected_bytes(tiny_lm, TEXT)
    found = expected.alternatives(257)
    assert len(found) == len(TEXT) + 1
    for t, ranked in enumerate(found):
        assert {one.byte for one in ranked} == {None, *range(256)}
        logprobs = [one.logprob for one in ranked]
        assert logprobs == sorted(logprobs, reverse=True)
        own = next(one for one in ranked if one.byte == (TEXT[t] if t < len(TEXT) else None))
        assert own.logprob == float(expected.byte_logprobs()[t])
    assert expected.alternatives_at(-1, 2) == found[-1][:2]
    assert expected.alternatives(2) == [ranked[:2] for ranked in found]


def test_another_rule_is_that_of_a_model_that_has_it(tiny_lm):
    own, other = expected_bytes(tiny_lm, TEXT), expected_bytes(tiny_lm, TEXT, rule=SpaceRule())
    assert not np.array_equal(own.logprobs, other.logprobs)
    tiny_lm.patch_rule = SpaceRule()
    assert np.array_equal(expected_bytes(tiny_lm, TEXT).logprobs, other.logprobs)


def test_a_rule_that_needs_an_entropy_model_is_refused_without_one(tiny_lm):
    tiny_lm.patch_rule, tiny_lm.entropy_model = SpaceRule(), None
    assert len(expected_bytes(tiny_lm, TEXT).logprobs) == len(TEXT) + 1
    with pytest.raises(ConfigurationError, match="needs an entropy model"):
        expected_bytes(tiny_lm, TEXT, rule=EntropyRule(threshold=1.0))
