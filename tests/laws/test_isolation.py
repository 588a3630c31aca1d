"""Law 4 for whole rows: a document is the same alone, packed, padded and in a batch; and the same as the slow way."""

import planted_flaws
import pytest
import torch
from checks_model import (
    assert_close,
    check_batch,
    check_batch_of_whole,
    check_packed,
    check_packed_whole,
    check_padding,
    given_patches,
)
from dense_reference import dense_entropy_logits, dense_logits
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import (
    SHAPES,
    TEXTS,
    cut_documents,
    every_rule_and_shape,
    every_shape,
    packed_row,
    random_ends,
    rows_and_ends,
    text_row,
    tiny_blt,
    tiny_entropy_model,
    tiny_lm,
)

from blt.codec import BOE_ID, BOS_ID, EOS_ID
from blt.patching import Patches

with_and_without_eos = pytest.mark.parametrize("eos", [True, False])


@every_rule_and_shape
@with_and_without_eos
def test_documents_packed_in_one_row_are_the_same_documents_alone(rule, shape, eos):
    row = packed_row(*TEXTS, b"", b"a", *TEXTS, eos=eos)
    check_packed_whole(tiny_lm(rule, shape=shape), row, documents=cut_documents(row))


@with_and_without_eos
def test_the_entropy_model_keeps_documents_apart(eos):
    row = packed_row(*TEXTS, b"", b"a", *TEXTS, eos=eos)
    check_packed_whole(tiny_entropy_model(), row, documents=cut_documents(row))
    check_packed_whole(tiny_entropy_model().entropies, row, documents=cut_documents(row))


@every_shape
def test_hand_written_patches_may_run_over_a_bos_and_documents_stay_apart(shape):
    row = torch.cat([text_row(23)[:, 1:], packed_row(*TEXTS, eos=False)], dim=1)  # the first has no BOS
    documents = cut_documents(row)
    for seed in range(4):
        check_packed(given_patches(tiny_blt(shape)), row, random_ends(*row.shape, seed=seed), documents=documents)
    over_every_bos = torch.zeros_like(row, dtype=torch.bool)
    for part in documents:
        over_every_bos[:, part.start + 5] = True
    check_packed(given_patches(tiny_blt(shape)), row, over_every_bos, documents=documents)


@given(rows_and_ends(), st.sampled_from(sorted(SHAPES)))
@settings(max_examples=25, deadline=None)
def test_any_row_with_any_boundaries_is_its_documents_alone_and_the_slow_forward(row, shape):
    ids, ends = row
    model = tiny_blt(shape)
    check_packed(given_patches(model), ids, ends, documents=cut_documents(ids))
    assert_close(model(ids, Patches(ends=ends)), dense_logits(model, ids, ends), "dense reference")


@every_shape
@pytest.mark.parametrize("length", [1, 3, 4, 5, 16, 17, 64, 75])
def test_the_forward_is_the_one_written_with_dense_masks(shape, length):
    model, ids, ends = tiny_blt(shape), text_row(length), random_ends(1, length, seed=length)
    assert_close(model(ids, Patches(ends=ends)), dense_logits(model, ids, ends), "dense reference")


@pytest.mark.parametrize("length", [1, 4, 5, 6, 10, 61])
def test_the_entropy_model_is_the_one_written_with_dense_masks(length):
    model, row = tiny_entropy_model(), packed_row(*TEXTS)[:, 20 : 20 + length]
    assert_close(model(row), dense_entropy_logits(model, row), "dense reference")


@every_shape
@pytest.mark.parametrize("padding_id", [BOE_ID, BOS_ID, EOS_ID, 104])
def test_padding_is_inert(shape, padding_id):
    ids, ends = text_row(29), random_ends(1, 29)
    for amount in (1, 3, 40):
        check_padding(given_patches(tiny_blt(shape)), ids, ends, amount=amount, padding_id=padding_id)


@every_shape
def test_unused_patch_slots_are_inert(shape):
    model, ids, ends = tiny_blt(shape), text_row(29), random_ends(1, 29)
    plain = model(ids, Patches(ends=ends))
    assert_close(model(ids, Patches(ends=ends, slots_multiple=32)), plain, "slots rounded up to 32")


@every_shape
def test_a_batch_of_n_rows_of_unequal_lengths_is_n_singles(shape):
    rows = [(text_row(length, seed=length), random_ends(1, length, seed=length)) for length in (40, 1, 7, 75, 16)]
    check_batch(given_patches(tiny_blt(shape)), rows)


@every_rule_and_shape
def test_a_batch_is_n_singles_through_the_patcher(rule, shape):
    lm = tiny_lm(rule, shape=shape)
    rows = [text_row(length, seed=length) for length in (40, 1, 7, 60)]
    check_batch_of_whole(lm, rows)
    check_batch_of_whole(lm.entropy_model, rows)


@pytest.mark.parametrize("flaw", ["plant_mixed_rows_in_pooling", "plant_mixed_rows_in_cross_attention"])
def test_mixed_rows_break_the_batch(flaw, monkeypatch):
    getattr(planted_flaws, flaw)(monkeypatch)
    rows = [(text_row(length, seed=length), random_ends(1, length, seed=length)) for length in (40, 30)]
    check_batch(given_patches(tiny_blt()), rows[:1])  # one row alone cannot show it
    with pytest.raises(AssertionError, match="row 0 of a batch"):
        check_batch(given_patches(tiny_blt()), rows)


@pytest.mark.parametrize("flaw", ["plant_ngrams_across_documents", "plant_windows_across_documents"])
def test_reaching_across_bos_breaks_packing(flaw, monkeypatch):
    getattr(planted_flaws, flaw)(monkeypatch)
    row = packed_row(*TEXTS)
    with pytest.raises(AssertionError, match="document 1 of a packed row"):
        check_packed(given_patches(tiny_blt()), row, random_ends(*row.shape), documents=cut_documents(row))


def test_an_entropy_model_that_reaches_across_bos_breaks_packing(monkeypatch):
    planted_flaws.plant_windows_across_documents(monkeypatch)
    row = packed_row(*TEXTS)
    with pytest.raises(AssertionError, match="document 1 of a packed row"):
        check_packed_whole(tiny_entropy_model().entropies, row, documents=cut_documents(row))


def test_storing_starts_breaks_packing():
    row = packed_row(*TEXTS)
    flawed = planted_flaws.storing_starts(tiny_blt())
    with pytest.raises(AssertionError, match="of a packed row"):
        check_packed(flawed, row, random_ends(*row.shape, share=0.1), documents=cut_documents(row))


def test_reading_ones_own_patch_lets_padding_in():
    flawed = planted_flaws.reading_its_own_patch(tiny_blt())
    with pytest.raises(AssertionError, match="padding"):
        check_padding(flawed, text_row(29), torch.zeros(1, 29, dtype=torch.bool), amount=3)


def test_a_window_one_too_wide_is_no_longer_the_slow_forward(monkeypatch):
    planted_flaws.plant_wide_windows(monkeypatch)
    model, ids, ends = tiny_blt(), text_row(40), random_ends(1, 40)
    with pytest.raises(AssertionError, match="dense reference"):
        assert_close(model(ids, Patches(ends=ends)), dense_logits(model, ids, ends), "dense reference")
    with pytest.raises(AssertionError, match="dense reference"):
        assert_close(tiny_entropy_model()(ids), dense_entropy_logits(tiny_entropy_model(), ids), "dense reference")
