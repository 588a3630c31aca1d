"""Law 4: a cached step is the full forward, at every position, whatever stands in the rows beside it."""

import dataclasses

import pytest
import torch
from checks_decoding import (
    check_batch_of_prompts,
    check_cached_step,
    check_reading_ahead,
    check_rows_come_and_go,
    check_session,
    check_step_after_parallel_pass,
)
from decoding_flaws import (
    FLAWS_OF_READING_AHEAD,
    FLAWS_OF_STEPS,
    plant_a_wider_entropy_window,
    plant_documents_that_go_on,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import RULES, SHAPES, packed_row, random_ends, rows_and_ends, text_row, tiny_blt, tiny_lm

from blt.codec import encode
from blt.errors import ConfigurationError
from blt.lm import DecodingSession, session
from blt.model import BLT
from blt.shapes import Bool, Int, Tensor

pytestmark = pytest.mark.usefixtures("backend")
every_shape = pytest.mark.parametrize("shape", SHAPES)
every_rule = pytest.mark.parametrize("rule", RULES)
DOCUMENTS = (b"Tom had a ball.", b"", "Zoë ate 3".encode(), b"\xff\x00" * 5)


def packed_batch(*, num_rows: int = 3) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Return rows of several documents, which start elsewhere in each, and boundaries that heed none of them."""
    row = packed_row(*DOCUMENTS)[0]
    ids = torch.stack([row.roll(7 * number) for number in range(num_rows)])
    return ids, random_ends(*ids.shape, seed=5)


@every_shape
def test_a_step_is_the_full_forward_at_every_byte_of_packed_rows_on_random_boundaries(shape):
    check_cached_step(tiny_blt(shape), *packed_batch())


@given(rows_and_ends(), st.sampled_from(sorted(SHAPES)), st.data())
@settings(max_examples=15, deadline=None)
def test_a_step_is_the_full_forward_on_any_ids_and_boundaries_with_and_without_a_parallel_pass(row, shape, data):
    ids, ends = row
    check_cached_step(tiny_blt(shape), ids, ends)
    length = data.draw(st.integers(1, ids.shape[1]))
    check_step_after_parallel_pass(tiny_blt(shape), ids, ends, lengths=torch.tensor([length]))


@every_shape
@pytest.mark.parametrize("lengths", [(1, 13, 27), (35, 21, 6), (17, 18, 19)])
def test_steps_go_on_after_a_parallel_pass_over_prompts_of_unequal_lengths(shape, lengths):
    ids, ends = packed_batch()
    check_step_after_parallel_pass(tiny_blt(shape), ids, ends, lengths=torch.tensor(lengths))


def test_a_patch_that_never_ends_grows_without_limit():
    ids = text_row(60)
    check_cached_step(tiny_blt(), ids, torch.zeros_like(ids, dtype=torch.bool).index_fill(1, torch.tensor([55]), True))


@every_shape
def test_a_step_is_the_full_forward_long_after_every_window_has_wrapped(shape):
    ids = text_row(70)
    check_cached_step(tiny_blt(shape), ids, random_ends(*ids.shape, share=0.2))


@every_rule
@pytest.mark.parametrize("at_once", [1, 4, 13])
def test_a_session_patches_and_predicts_as_the_full_forward_does(rule, at_once):
    check_session(tiny_lm(rule, shape="three-queries-read-first"), packed_batch(num_rows=2)[0], at_once=at_once)


@every_shape
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_bytes_read_at_once_and_taken_back_leave_no_trace(shape, share):
    ids = torch.cat([text_row(60, seed=1), text_row(60, seed=2)])
    check_reading_ahead(tiny_blt(shape), ids, random_ends(*ids.shape, share=share), seed=int(10 * share))


@given(st.integers(0, 10_000), st.sampled_from(sorted(SHAPES)))
@settings(max_examples=10, deadline=None)
def test_bytes_read_at_once_and_taken_back_leave_no_trace_on_any_boundaries(seed, shape):
    ids = torch.cat([text_row(40, seed=seed), text_row(40, seed=seed + 1)])
    check_reading_ahead(tiny_blt(shape), ids, random_ends(*ids.shape, seed=seed), seed=seed)


@every_rule
def test_rows_that_join_and_leave_at_any_byte_are_the_rows_alone(rule):
    rows = [text_row(length, seed=length)[0] for length in (30, 9, 21, 2)]
    check_rows_come_and_go(tiny_lm(rule, shape="two-encoder-layers-untied"), [*rows, packed_row(*DOCUMENTS)[0]])


@every_rule
def test_a_batch_of_prompts_is_the_prompts_alone(rule):
    prompts = [encode(text, bos=True) for text in (b"", b"Tom had a red ball. " * 3, "é".encode()[:1], b"\0")]
    check_batch_of_prompts(tiny_lm(rule), [*prompts, encode(b"no BOS")])


def test_a_step_in_bfloat16_is_as_near_the_full_forward_as_rounding_allows():
    check_cached_step(tiny_blt().to(torch.bfloat16), *packed_batch(), tolerance=0.5)


@pytest.mark.parametrize("plant", FLAWS_OF_STEPS, ids=lambda plant: plant.__name__)
def test_the_law_notices_a_planted_flaw(plant, monkeypatch):
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="cached step"):
        check_cached_step(tiny_blt(), *packed_batch())


def test_the_law_notices_an_entropy_model_with_another_window(monkeypatch):
    monkeypatch.setattr(session, "packed_model", lambda *parts, **options: None)  # the flaw is PyTorch's
    plant_a_wider_entropy_window(monkeypatch)
    with pytest.raises(AssertionError, match="patches included"):
        check_session(tiny_lm("entropy"), packed_batch()[0])


def test_the_law_notices_documents_that_go_on_after_a_parallel_pass(monkeypatch):
    plant_documents_that_go_on(monkeypatch)
    with pytest.raises(AssertionError, match=r"step \d after a pass"):
        check_step_after_parallel_pass(tiny_blt(), *packed_batch(), lengths=torch.tensor([12, 30, 5]))


def test_the_law_notices_rows_that_are_mixed_when_they_join(monkeypatch):
    original = DecodingSession.add

    def flawed(self, prompts):
        rows, logits = original(self, prompts)
        return (rows - 1).clip(0), logits

    monkeypatch.setattr(DecodingSession, "add", flawed)
    with pytest.raises((AssertionError, ConfigurationError), match=r"beside|named twice"):
        check_rows_come_and_go(tiny_lm("space"), [text_row(length, seed=length)[0] for length in (40, 20, 31)])


@pytest.mark.parametrize("plant", FLAWS_OF_READING_AHEAD, ids=lambda plant: plant.__name__)
def test_the_law_notices_a_planted_flaw_in_reading_ahead(plant, monkeypatch):
    plant(monkeypatch)
    ids = torch.cat([text_row(60, seed=1), text_row(60, seed=2)])
    with pytest.raises(AssertionError, match="bytes at once"):
        check_reading_ahead(tiny_blt(), ids, random_ends(*ids.shape))


def test_a_window_wider_than_the_row_shows_all_of_it():
    wide = dataclasses.replace(SHAPES["one-query"].local_encoder, window=500)
    model = BLT(dataclasses.replace(SHAPES["one-query"], local_encoder=wide)).eval().requires_grad_(False)
    check_cached_step(model, *packed_batch())
