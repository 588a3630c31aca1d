"""Laws 1 and 2: nothing read later changes what was predicted, and what may be read is read."""

import planted_flaws
import pytest
import torch
from checks_model import (
    check_edit,
    check_edit_of_whole,
    check_gradient,
    check_moved_end,
    check_reads_what_it_may,
    check_truncation,
    check_truncation_of_whole,
    given_patches,
    gradient_strength,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import (
    SHAPES,
    every_rule_and_shape,
    every_shape,
    random_ends,
    rows_and_ends,
    text_row,
    tiny_blt,
    tiny_entropy_model,
    tiny_lm,
)

from blt.codec import BOS_ID, EOS_ID
from blt.patching import Patches

LENGTH = 75  # longer than any window several times over, and a multiple of none
NEW_IDS = (259, 4, 36, BOS_ID, EOS_ID)


@every_shape
@pytest.mark.parametrize("seed", [0, 1])
def test_an_edit_leaves_all_logits_before_it_as_they_are_bit_for_bit(shape, seed):
    forward, ids, ends = given_patches(tiny_blt(shape)), text_row(LENGTH), random_ends(1, LENGTH, seed=seed)
    for position, new_id in zip((1, 8, 31, 32, 50, LENGTH - 1), (*NEW_IDS, 100), strict=True):
        check_edit(forward, ids, ends, position=position, new_id=new_id)


@given(rows_and_ends(), st.sampled_from(sorted(SHAPES)), st.data())
@settings(max_examples=25, deadline=None)
def test_edits_moved_ends_and_truncation_leave_the_past_alone_on_any_boundaries(row, shape, data):
    ids, ends = row
    forward = given_patches(tiny_blt(shape))
    position = data.draw(st.integers(1, ids.shape[1] - 1))
    check_edit(forward, ids, ends, position=position, new_id=data.draw(st.sampled_from(NEW_IDS)))
    check_moved_end(forward, ids, ends, position=position)
    check_truncation(forward, ids, ends, length=position)


@every_rule_and_shape
def test_an_edit_leaves_the_past_alone_through_the_patcher(rule, shape):
    lm, ids = tiny_lm(rule, shape=shape), text_row(LENGTH)
    for position, new_id in zip((1, 20, 47, LENGTH - 1), NEW_IDS, strict=False):
        check_edit_of_whole(lm, ids, position=position, new_id=new_id)


@every_rule_and_shape
def test_a_prefix_alone_is_the_prefix_of_the_whole_through_the_patcher(rule, shape):
    lm, ids = tiny_lm(rule, shape=shape), text_row(LENGTH)
    for length in (1, 2, 9, 32, 33, 60, LENGTH - 1):
        check_truncation_of_whole(lm, ids, length=length)


@every_shape
def test_a_prefix_alone_is_the_prefix_of_the_whole_on_hand_written_patches(shape):
    forward, ids, ends = given_patches(tiny_blt(shape)), text_row(LENGTH), random_ends(1, LENGTH)
    for length in range(1, LENGTH, 7):
        check_truncation(forward, ids, ends, length=length)


def test_the_entropy_model_is_causal():
    model, ids = tiny_entropy_model(), text_row(LENGTH)
    for position in (1, 5, 30, LENGTH - 1):
        check_edit_of_whole(model, ids, position=position, new_id=200)
        check_edit_of_whole(model.entropies, ids, position=position, new_id=BOS_ID)
        check_truncation_of_whole(model.entropies, ids, length=position)


@every_rule_and_shape
def test_no_gradient_reaches_a_later_byte(rule, shape):
    lm, ids = tiny_lm(rule, shape=shape), text_row(LENGTH)
    for position in (0, 13, 40, LENGTH - 1):
        check_gradient(lm.blt, ids, lm.patches(ids), position=position)


@every_rule_and_shape
def test_all_that_may_be_read_is_read(rule, shape):
    lm, ids = tiny_lm(rule, shape=shape), text_row(LENGTH)
    for position in (0, 1, 12, 40, LENGTH - 1):
        check_reads_what_it_may(lm.blt, ids, lm.patches(ids), position=position, first=0)


@every_shape
def test_the_byte_that_closes_a_long_patch_reads_it_to_its_start(shape):
    ids, ends = text_row(LENGTH), torch.zeros(1, LENGTH, dtype=torch.bool)
    ends[:, [2, 70]] = True
    patches, model = Patches(ends=ends), tiny_blt(shape)
    check_reads_what_it_may(model, ids, patches, position=70, first=0)
    one_earlier = gradient_strength(model, ids, patches, position=69)
    assert one_earlier[3] == 0, "the patch is open: its start is beyond every window, and must not be read yet"
    assert one_earlier[2] > 0, "the patch before it is complete"


def test_reading_ones_own_patch_breaks_edit_gradient_and_truncation():
    model, ids, ends = tiny_blt(), text_row(LENGTH), torch.zeros(1, LENGTH, dtype=torch.bool)
    ends[:, 9::10] = True
    flawed = planted_flaws.reading_its_own_patch(model)
    with pytest.raises(AssertionError, match="edit of byte 58"):
        check_edit(flawed, ids, ends, position=58, new_id=100)
    with pytest.raises(AssertionError, match="truncation to 55"):
        check_truncation(flawed, ids, ends, length=55)
    with pytest.raises(AssertionError, match="depend on byte 53"):
        check_gradient(model, ids, planted_flaws.OwnPatchReadable(ends=ends), position=52)


def test_storing_starts_breaks_truncation():
    flawed = planted_flaws.storing_starts(tiny_blt())
    with pytest.raises(AssertionError, match="truncation to 40"):
        check_truncation(flawed, text_row(LENGTH), random_ends(1, LENGTH, share=0.1), length=40)


def test_always_reading_the_previous_patch_starves_the_byte_that_closes_one():
    ends = torch.zeros(1, LENGTH, dtype=torch.bool)
    ends[:, [2, 70]] = True
    flawed = planted_flaws.PreviousPatchReadable(ends=ends)
    check_gradient(tiny_blt(), text_row(LENGTH), flawed, position=70)  # it is causal all the same
    with pytest.raises(AssertionError, match="starved: logits at 70 do not depend on byte 3"):
        check_reads_what_it_may(tiny_blt(), text_row(LENGTH), flawed, position=70, first=0)


def test_a_global_transformer_that_forgets_starves_the_far_past(monkeypatch):
    model, ends = tiny_blt(), torch.ones(1, LENGTH, dtype=torch.bool)
    monkeypatch.setattr(model.global_transformer, "forward", lambda patch_states, layout, state: patch_states)
    with pytest.raises(AssertionError, match="do not reach back to 0"):
        check_reads_what_it_may(model, text_row(LENGTH), Patches(ends=ends), position=70, first=0)


def test_feeding_a_patch_with_later_bytes_breaks_causality(monkeypatch):
    planted_flaws.plant_pooling_of_the_following_byte(monkeypatch)
    model, ids, ends = tiny_blt(), text_row(LENGTH), random_ends(1, LENGTH)
    last = int(ends[0, :60].nonzero()[-1])
    with pytest.raises(AssertionError, match="causality by edit"):
        check_edit(given_patches(model), ids, ends, position=last + 1, new_id=100)
    with pytest.raises(AssertionError, match=f"logits at {last} depend on byte {last + 1}"):
        check_gradient(model, ids, Patches(ends=ends), position=last)


def test_an_entropy_model_that_looks_ahead_breaks_causality_through_the_patcher():
    lm, ids = tiny_lm("entropy"), text_row(LENGTH)
    lm.entropy_model = planted_flaws.looking_ahead(lm.entropy_model)
    with pytest.raises(AssertionError, match="causality"):
        check_edit_of_whole(lm, ids, position=20, new_id=100)
    with pytest.raises(AssertionError, match="causality"):
        check_edit_of_whole(lm.entropies, ids, position=30, new_id=100)
