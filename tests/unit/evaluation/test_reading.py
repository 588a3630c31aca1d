"""What a model expects at every byte of a text."""

import numpy as np
import pytest

from blt.errors import ConfigurationError
from blt.evaluation.reading import read_text
from blt.patching import EntropyRule, SpaceRule

TEXT = "Zoë saw 魚 and ran.".encode() + b"\xff\xe2\x82"


@pytest.mark.parametrize("data", [TEXT, b"", b"a"])
def test_a_reading_agrees_with_score_and_patch(tiny_lm, data):
    reading, score, shown = read_text(tiny_lm, data), tiny_lm.score(data), tiny_lm.patch(data)
    assert np.allclose(-reading.byte_logprobs() / np.log(2), score.bits_by_byte, rtol=1e-6)
    assert reading.entropies.tolist() == [value for one in shown for value in one.entropies]
    sizes = [len(one.entropies) for one in shown if one.is_complete]
    assert np.flatnonzero(reading.ends).tolist() == (np.cumsum(sizes) - 1).tolist()
    assert reading.data == data


def test_alternatives_are_the_likeliest_bytes_and_the_end(tiny_lm):
    reading = read_text(tiny_lm, TEXT)
    found = reading.alternatives(257)
    assert len(found) == len(TEXT) + 1
    for t, ranked in enumerate(found):
        assert {one.byte for one in ranked} == {None, *range(256)}
        logprobs = [one.logprob for one in ranked]
        assert logprobs == sorted(logprobs, reverse=True)
        own = next(one for one in ranked if one.byte == (TEXT[t] if t < len(TEXT) else None))
        assert own.logprob == float(reading.byte_logprobs()[t])
    assert reading.alternatives(2) == [ranked[:2] for ranked in found]


def test_another_rule_changes_the_patches_and_not_the_entropies(tiny_lm):
    own, other = read_text(tiny_lm, TEXT), read_text(tiny_lm, TEXT, rule=SpaceRule())
    assert np.array_equal(own.entropies, other.entropies)
    assert not np.array_equal(own.ends, other.ends)
    assert not np.array_equal(own.logprobs, other.logprobs)


def test_a_rule_that_needs_an_entropy_model_is_refused_without_one(tiny_lm):
    tiny_lm.patch_rule, tiny_lm.entropy_model = SpaceRule(), None
    assert read_text(tiny_lm, TEXT).entropies is None
    with pytest.raises(ConfigurationError, match="needs an entropy model"):
        read_text(tiny_lm, TEXT, rule=EntropyRule(threshold=1.0))
