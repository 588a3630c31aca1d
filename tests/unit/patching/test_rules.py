import math

import pytest
import torch

from blt.codec import BOS_ID, EOS_ID, encode
from blt.configuration import from_dict, to_dict
from blt.errors import ConfigurationError
from blt.patching import (
    ByteRule,
    EntropyAndRiseRule,
    EntropyRiseRule,
    EntropyRule,
    PatchRule,
    SpaceRule,
    StaticRule,
    patch,
)

EVERY_RULE = [
    EntropyRule(threshold=1.5),
    EntropyRiseRule(threshold=-0.25, max_length=6),
    EntropyAndRiseRule(threshold=1.5, rise_threshold=0.5),
    SpaceRule(max_length=3),
    StaticRule(length=4),
    ByteRule(),
]


def pieces(text: str | bytes, rule: PatchRule, *, entropies: list[float] | None = None) -> list[bytes]:
    """The bytes of each patch of a document's text, without BOS; a trailing open patch too."""
    ids = encode(text, bos=True)
    values = None if entropies is None else torch.tensor([[0.0, *entropies]])
    owners = patch(ids[None], rule, entropies=values).ids[0]
    data = encode(text).add(-4).tolist()
    return [bytes(data[i] for i in range(len(data)) if owners[i + 1] == p) for p in range(1, int(owners[-1]) + 1)]


def test_entropy_ends_a_patch_after_a_byte_above_the_threshold():
    assert pieces("abcdef", EntropyRule(threshold=2.0), entropies=[1.0, 3.0, 2.0, 2.5, 0.0, 0.0]) == [
        b"ab",
        b"cd",
        b"ef",
    ]


def test_entropy_rise_compares_with_the_byte_before_even_with_bos():
    rule = EntropyRiseRule(threshold=0.5)
    assert pieces("abcd", rule, entropies=[1.0, 1.5, 3.0, 0.0]) == [b"a", b"bc", b"d"]


def test_entropy_rise_has_no_value_before_a_row_or_document():
    ids = torch.tensor([[70, 70, EOS_ID, 70, 70]])
    entropies = torch.tensor([[5.0, 5.0, 0.0, 5.0, 9.0]])
    ends = patch(ids, EntropyRiseRule(threshold=1.0), entropies=entropies).ends
    assert ends.tolist() == [[False, False, True, False, True]]


def test_entropy_and_rise_wants_both():
    rule = EntropyAndRiseRule(threshold=2.0, rise_threshold=0.5)
    assert pieces("abcde", rule, entropies=[1.0, 2.5, 2.6, 1.0, 1.9]) == [b"ab", b"cde"]


def test_space_ends_a_patch_after_the_first_space_like_byte_of_several():
    assert pieces("one, two  3 x", SpaceRule()) == [b"one,", b" two ", b" 3 ", b"x"]


def test_space_counts_a_leading_byte_as_space_like_and_a_continuation_as_a_letter():
    assert pieces("aé é", SpaceRule()) == [b"a\xc3", b"\xa9 ", b"\xc3\xa9"]


def test_space_sees_bos_as_space_like():
    assert pieces(" a b", SpaceRule()) == [b" a ", b"b"]


def test_static_counts_from_bos():
    ids = torch.cat([encode("abcd", bos=True, eos=True), encode("abcdefg", bos=True)])[None]
    assert patch(ids, StaticRule(length=3)).end_positions[0].tolist() == [0, 3, 5, 6, 9, 12]


def test_static_counts_from_the_start_of_a_row_within_a_document():
    assert patch(encode("abcdefg")[None], StaticRule(length=3)).end_positions[0].tolist() == [2, 5]


def test_byte_ends_a_patch_after_every_byte():
    assert bool(patch(encode("abc")[None], ByteRule()).ends.all())


def test_max_length_counts_from_where_the_patch_began():
    assert pieces("abcdefg hijkl", SpaceRule(max_length=3)) == [b"abc", b"def", b"g ", b"hij", b"kl"]
    assert pieces("abcdefgh", StaticRule(length=5, max_length=2)) == [b"ab", b"cd", b"e", b"fg", b"h"]


def test_bos_within_an_open_patch_joins_it():
    ids = torch.tensor([[70, BOS_ID, 70]])
    assert patch(ids, StaticRule(length=9)).ends.tolist() == [[False, True, False]]


def test_other_special_ids_end_nothing_by_themselves():
    assert not bool(patch(torch.tensor([[0, 3, 0, 0]]), SpaceRule()).ends.any())


@pytest.mark.parametrize("shape", [(1, 0), (0, 5), (0, 0)])
@pytest.mark.parametrize("rule", EVERY_RULE)
def test_empty_batches_have_no_patches(rule, shape):
    ids, entropies = torch.zeros(shape, dtype=torch.long), torch.zeros(shape)
    assert patch(ids, rule, entropies=entropies).ends.shape == shape


def test_thresholds_are_compared_in_float32_whatever_the_entropies_are_in():
    ids, entropies = encode("ab")[None], torch.tensor([[0.1, 0.2]], dtype=torch.float64)
    assert not bool(patch(ids, EntropyRule(threshold=0.2), entropies=entropies).ends[0, 1])
    assert bool(patch(ids, EntropyRule(threshold=0.1999), entropies=entropies.bfloat16()).ends[0, 1])


def test_slots_are_rounded_up_on_request():
    assert patch(encode("abc")[None], ByteRule(), slots_multiple=8).num_slots == 8


@pytest.mark.parametrize("rule", EVERY_RULE[:3])
def test_a_rule_without_the_entropies_it_needs_says_so(rule):
    assert rule.needs_entropies
    with pytest.raises(ConfigurationError, match="needs entropies, and got none"):
        patch(encode("abc")[None], rule)


@pytest.mark.parametrize("rule", EVERY_RULE[3:])
def test_a_rule_that_needs_no_entropies_does_not_look_at_them(rule):
    assert not rule.needs_entropies
    ids = encode("some text, and more")[None]
    unknown = torch.full(ids.shape, math.nan)
    assert torch.equal(patch(ids, rule).ends, patch(ids, rule, entropies=unknown).ends)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"type": "entropy", "threshold": math.nan}, "threshold: expected a finite number of nats, got nan"),
        ({"type": "entropy-rise", "threshold": math.inf}, "threshold: expected a finite number"),
        (
            {"type": "entropy-and-rise", "threshold": 1.0, "rise_threshold": math.inf},
            "rise_threshold: expected a finite",
        ),
        ({"type": "static", "length": 0}, "length: a patch holds at least 1 byte, got 0"),
        ({"type": "byte", "max_length": 0}, "max_length: a patch holds at least 1 byte, got 0"),
        ({"type": "static", "length": 4, "max_length": -1}, "max_length"),
        ({"type": "entropy-raise", "threshold": 1.0}, "did you mean 'entropy-rise'"),
        ({"type": "static"}, "length: missing"),
    ],
)
def test_what_cannot_be_is_refused(values, message):
    with pytest.raises(ConfigurationError, match=message):
        from_dict(PatchRule, values)


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_every_rule_survives_being_written_and_read(rule):
    assert from_dict(PatchRule, to_dict(rule)) == rule
