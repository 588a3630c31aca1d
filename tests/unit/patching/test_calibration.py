import re

import pytest
import torch

from blt.codec import encode
from blt.errors import ConfigurationError, DataError
from blt.patching import (
    ByteRule,
    EntropyAndRiseRule,
    EntropyRiseRule,
    EntropyRule,
    Patches,
    SpaceRule,
    StaticRule,
    calibrate,
    count_text,
    mean_patch_bytes,
    patch,
)


@pytest.fixture
def sample():
    """Six documents of 0 to 250 bytes with random entropies."""
    ids = [encode(bytes(torch.randint(0, 256, (50 * n,)).tolist()), bos=True, eos=True) for n in range(6)]
    return {"byte_ids": ids, "entropies": [5.5 * torch.rand(len(one)) for one in ids]}


def measured(rule, sample):
    counts = [
        count_text(patch(ids[None], rule, entropies=entropies[None]), ids[None])
        for ids, entropies in zip(sample["byte_ids"], sample["entropies"], strict=True)
    ]
    return sum(num_bytes for num_bytes, _ in counts) / sum(num_patches for _, num_patches in counts)


def test_a_mean_counts_bytes_of_text_and_patches_that_hold_any():
    ids = encode("abcdef", bos=True, eos=True)[None]
    ends = torch.tensor([[True, False, True, False, False, False, True, True]])  # BOS | ab | cdef | EOS
    assert count_text(Patches(ends=ends), ids) == (6, 2)
    assert mean_patch_bytes(Patches(ends=ends), ids) == 3.0


def test_an_open_patch_counts_and_padding_does_not():
    ids = torch.cat([encode("abcd", bos=True), torch.zeros(5, dtype=torch.long)])[None]
    assert count_text(patch(ids, StaticRule(length=3)), ids) == (4, 2)


def test_every_byte_a_patch_means_one_byte_per_patch():
    ids = encode("abcdef", bos=True, eos=True)[None]
    assert mean_patch_bytes(patch(ids, ByteRule()), ids) == 1.0


def test_a_mean_without_text_is_zero():
    ids = encode("", bos=True, eos=True)[None]
    assert mean_patch_bytes(patch(ids, SpaceRule()), ids) == 0.0


@pytest.mark.parametrize("max_length", [None, 7])
@pytest.mark.parametrize("wanted", [3.5, 4.4])
@pytest.mark.parametrize(
    "rule",
    [
        EntropyRule(threshold=0.0),
        EntropyRiseRule(threshold=0.0),
        EntropyAndRiseRule(threshold=0.0, rise_threshold=0.5),
    ],
)
def test_the_threshold_found_gives_the_mean_wanted_on_documents_alone(rule, wanted, max_length, sample):
    rule = type(rule)(**{**vars(rule), "max_length": max_length})
    found = calibrate(rule, **sample, mean_patch_bytes=wanted)
    assert type(found) is type(rule)
    assert {**vars(found), "threshold": 0.0} == vars(rule)
    assert measured(found, sample) == pytest.approx(wanted, abs=0.05)


@pytest.mark.parametrize("wanted", [1.0, 1.3, 2.0, 3.0, 50.0])
def test_no_other_threshold_comes_nearer(wanted):
    ids = encode("abcdefghijkl" * 4 + "xy", bos=True, eos=True)
    sample = {"byte_ids": [ids], "entropies": [torch.randint(0, 6, (len(ids),)).float()]}  # few values, many ties
    found = calibrate(EntropyRule(threshold=0.0), **sample, mean_patch_bytes=wanted)
    best = min(abs(measured(EntropyRule(threshold=value - 0.5), sample) - wanted) for value in range(7))
    assert abs(measured(found, sample) - wanted) == best


def test_the_threshold_keeps_away_from_the_entropies_that_occur():
    sample = {"byte_ids": [encode("abcd", bos=True, eos=True)], "entropies": [torch.tensor([0.0, 1, 3, 1, 3, 0])]}
    assert calibrate(EntropyRule(threshold=0.0), **sample, mean_patch_bytes=2.0).threshold == 2.0


@pytest.mark.parametrize("wanted", [0.5, -1.0, float("nan"), float("inf")])
def test_fewer_bytes_than_one_per_patch_are_refused(wanted, sample):
    with pytest.raises(ConfigurationError, match="at least 1 byte, got"):
        calibrate(EntropyRule(threshold=0.0), **sample, mean_patch_bytes=wanted)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (EntropyRule(threshold=0.0), 1000.0),
        (EntropyRule(threshold=0.0, max_length=3), 3.5),
        (EntropyAndRiseRule(threshold=0.0, rise_threshold=0.0), 1.1),
    ],
)
def test_a_mean_that_no_threshold_gives_is_refused_with_the_range_that_is_there(rule, wanted, sample):
    with pytest.raises(ConfigurationError, match=rf"no threshold gives {wanted:g} .* can be \d"):
        calibrate(rule, **sample, mean_patch_bytes=wanted)


@pytest.mark.parametrize("rule", [SpaceRule(), StaticRule(length=4), ByteRule()])
def test_a_rule_without_threshold_cannot_be_calibrated(rule, sample):
    with pytest.raises(ConfigurationError, match="has no threshold"):
        calibrate(rule, **sample, mean_patch_bytes=4.4)


WHOLE = encode("abc", bos=True, eos=True)


@pytest.mark.parametrize(
    ("byte_ids", "entropies", "message"),
    [
        ([], [], "needs text, and got none"),
        ([encode("", bos=True, eos=True)], [torch.zeros(2)], "needs text, and got none"),
        ([WHOLE], [], "got 1 documents and the entropies of 0"),
        ([WHOLE, WHOLE], [torch.zeros(5), torch.zeros(4)], "document 2 has 5 ids and 4 entropies"),
        ([WHOLE[1:]], [torch.zeros(4)], "document 1 is not whole"),
        ([WHOLE[:-1]], [torch.zeros(4)], "document 1 is not whole"),
        ([WHOLE], [torch.full((5,), float("nan"))], "not finite"),
    ],
)
def test_documents_that_cannot_serve_are_refused(byte_ids, entropies, message):
    with pytest.raises(DataError, match=re.escape(message)):
        calibrate(EntropyRule(threshold=0.0), byte_ids=byte_ids, entropies=entropies, mean_patch_bytes=2.0)


def test_a_rise_that_never_qualifies_leaves_nothing_to_search():
    with pytest.raises(DataError, match="whatever its threshold"):
        calibrate(
            EntropyAndRiseRule(threshold=0.0, rise_threshold=9.0),
            byte_ids=[WHOLE],
            entropies=[torch.zeros(5)],
            mean_patch_bytes=2.0,
        )
