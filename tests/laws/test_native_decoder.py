"""Law 4 for the native decoder: its step is the full forward, and a row's bits depend on nothing but the row."""

import functools

import numpy as np
import pytest
import torch
from checks_decoding import check_cached_step, check_reading_ahead, check_step_after_parallel_pass
from hypothesis import given, settings
from hypothesis import strategies as st
from native_state import NativeState
from test_cached_step import packed_batch
from tiny_models import RULES, SHAPES, random_ends, rows_and_ends, text_row, tiny_blt, tiny_lm

from blt.decoder import library, packed, packed_model
from blt.errors import ConfigurationError
from blt.lm import DecodingSession
from blt.patching import Patches

pytestmark = pytest.mark.skipif(library.library() is None, reason="no compiler here")
every_shape = pytest.mark.parametrize("shape", SHAPES)
every_rule = pytest.mark.parametrize("rule", RULES)
two_threads = functools.partial(NativeState, num_threads=2)


@every_shape
def test_a_step_is_the_full_forward_at_every_byte_of_packed_rows_on_random_boundaries(shape):
    check_cached_step(tiny_blt(shape), *packed_batch(), make_state=two_threads)


@given(rows_and_ends(), st.sampled_from(sorted(SHAPES)), st.data())
@settings(max_examples=15, deadline=None)
def test_a_step_is_the_full_forward_on_any_ids_and_boundaries(row, shape, data):
    ids, ends = row
    check_cached_step(tiny_blt(shape), ids, ends, make_state=NativeState)
    length = data.draw(st.integers(1, ids.shape[1]))
    check_step_after_parallel_pass(tiny_blt(shape), ids, ends, lengths=torch.tensor([length]), make_state=NativeState)


@every_shape
@pytest.mark.parametrize("lengths", [(1, 13, 27), (35, 21, 6)])
def test_steps_go_on_after_prompts_of_unequal_lengths(shape, lengths):
    lengths = torch.tensor(lengths)
    check_step_after_parallel_pass(tiny_blt(shape), *packed_batch(), lengths=lengths, make_state=two_threads)


@every_shape
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_bytes_read_at_once_and_rewound_leave_no_trace(shape, share):
    ids = torch.cat([text_row(60, seed=1), text_row(60, seed=2)])
    ends = random_ends(*ids.shape, share=share)
    check_reading_ahead(tiny_blt(shape), ids, ends, seed=int(10 * share), make_state=NativeState)


def stepped(lm, ids, *, at_once=1):
    """Return the logits of rows read from their start, so many bytes at once."""
    session = DecodingSession(lm)
    assert session.is_native
    rows = session.start(len(ids))
    return torch.cat([session.read(part, rows) for part in ids.split(at_once, dim=1)], dim=1)


@every_rule
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_a_row_gives_the_same_bits_alone_in_a_batch_at_once_as_a_prompt_and_on_any_number_of_threads(rule, dtype):
    lm = tiny_lm(rule, shape="as-wide-as-vectors").to_type(dtype)
    ids = torch.cat([text_row(60, seed=seed) for seed in range(5)])
    expected = stepped(lm, ids[:1])
    session = DecodingSession(lm)
    assert torch.equal(session.add([ids[0], ids[1, :7]])[1][0], expected[0, -1])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            assert torch.equal(stepped(lm, ids)[:1], expected)
            assert torch.equal(stepped(lm, ids, at_once=13)[:1], expected)
    finally:
        torch.set_num_threads(before)


def test_a_prompt_of_many_portions_is_the_full_forward():
    lm = tiny_lm("entropy-cut", shape="as-wide-as-vectors")
    ids = torch.cat([text_row(700), text_row(601, seed=1)], dim=1)  # two documents
    _, logits = DecodingSession(lm).add([ids[0], ids[0, :650]])
    full = lm(ids)[0]
    torch.testing.assert_close(logits, full[[-1, 649]], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4"])
@every_shape
def test_other_types_are_as_near_the_full_forward_as_rounding_allows(shape, dtype):
    lm = tiny_lm("space", shape=shape).to_type(dtype)
    ids = text_row(60)
    found, expected = stepped(lm, ids), lm(ids)
    assert not torch.equal(found, expected)
    difference = found - expected
    assert float(difference.pow(2).mean().sqrt()) < 0.06 * float(expected.std())  # one byte read wrongly is more
    assert float(difference.abs().max()) < 1


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4"])
def test_keys_and_values_are_kept_in_int8_with_scales_where_the_weights_are_not_float32(dtype):
    def memory(lm):
        session = DecodingSession(lm)
        session.add([text_row(2000)[0]])
        return session.num_bytes()

    lm = tiny_lm("space", shape="as-wide-as-vectors")
    config = lm.blt.config.global_transformer
    width = config.dim // config.num_heads
    before = memory(lm)
    after = memory(lm.to_type(dtype))
    assert after["global transformer"] == before["global transformer"] * (width + 4) // (4 * width) > 0
    for part in ("local encoder", "local decoder"):  # which hold the states of the open patch, or patches to read, too
        assert after[part] < before[part]


def test_float32_weights_that_bfloat16_holds_are_packed_in_half_the_memory_and_give_the_same():
    exact = tiny_lm(shape="as-wide-as-vectors").to_type("bfloat16").to_type("float32")
    ids = text_row(60)
    torch.testing.assert_close(stepped(exact, ids), exact(ids), atol=2e-5, rtol=2e-5)
    assert (
        packed_model(exact.blt, None).num_bytes[0]
        < 0.6 * packed_model(tiny_blt("as-wide-as-vectors"), None).num_bytes[0]
    )


def test_weights_that_are_not_finite_give_what_the_full_forward_gives():
    lm = tiny_lm("space")
    with torch.no_grad():
        lm.blt.global_transformer.layers.layers[0].feed_forward.up.weight[0, 0] = torch.nan
    ids = text_row(40)
    assert torch.equal(stepped(lm, ids).isnan().any(-1), lm(ids).isnan().any(-1))


def test_weights_that_change_are_packed_anew_and_others_are_not():
    lm = tiny_lm("space")
    ids = text_row(20)
    before = packed_model(lm.blt, None)
    assert packed_model(lm.blt, None) is before
    lm.blt.local_decoder.layers.layers[0].feed_forward.down.weight.data[3, 2] += 1
    assert packed_model(lm.blt, None) is not before
    torch.testing.assert_close(stepped(lm, ids), lm(ids), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("field", ["window", "residual_scale", "queries_per_patch"])
def test_the_law_notices_a_planted_flaw(field, monkeypatch):
    def flawed(name):
        original = getattr(packed.c, name)

        def make(*values, **fields):
            if fields.get(field):
                fields[field] += 1
            return original(*values, **fields)

        monkeypatch.setattr(packed.c, name, make)

    for name in ("Stack", "ModelSpec"):
        flawed(name)
    with pytest.raises((AssertionError, ConfigurationError), match=r"cached step|expected"):
        check_cached_step(tiny_blt(), *packed_batch(), make_state=NativeState)


def test_what_cannot_be_is_refused_at_the_door():
    lm = tiny_lm("space")
    session = DecodingSession(lm, max_rollback=4)
    rows = session.start(2)
    one = torch.tensor([[70], [71]])
    with pytest.raises(ConfigurationError, match="row 7: there is no such row"):
        session.read(one, np.array([0, 7]))
    with pytest.raises(ConfigurationError, match="row 0: it is named twice"):
        session.read(one, np.array([0, 0]))
    with pytest.raises(ConfigurationError, match="id 260: not from 0 to 259"):
        session.read(torch.tensor([[260], [5]]), rows)
    with pytest.raises(ConfigurationError, match="id -1"):
        session.read(torch.tensor([[-1], [5]]), rows)
    with pytest.raises(ConfigurationError, match="1 rows of them, for 2 rows"):
        session.read(one[:1], rows)
    decoding = session._decoding
    with pytest.raises(ConfigurationError, match="nothing to forward"):
        decoding.forward()
    session.read(one, rows)
    with pytest.raises(ConfigurationError, match="can take back 0 to 1 bytes, got 2"):
        decoding.rewind(np.array([0, 2]))
    decoding.rewind(np.array([0, 1]))
    with pytest.raises(ConfigurationError, match="once"):
        decoding.rewind(np.array([0, 1]))
    decoding.draft(one.expand(-1, 3), rows)
    with pytest.raises(ConfigurationError, match="at most 4 bytes can be drafted"):
        decoding.draft(one.expand(-1, 2), rows)
    with pytest.raises(ConfigurationError, match="discard the draft"):
        decoding.read(one, rows)
    decoding.discard_draft()
    session.remove(rows)
    with pytest.raises(ConfigurationError, match="no such row"):
        session.remove(rows[:1])


def test_a_row_that_joins_where_one_left_is_new():
    lm = tiny_lm(shape="two-encoder-layers-untied")
    session = DecodingSession(lm)
    rows, _ = session.add([text_row(50)[0], text_row(30)[0]])
    session.remove(rows[:1])
    joined, logits = session.add([text_row(33, seed=9)[0]])
    assert joined.tolist() == [0]
    assert torch.equal(logits[0], stepped(lm, text_row(33, seed=9))[0, -1])


def test_memory_does_not_grow_with_the_text_but_for_the_entries_of_patches():
    lm = tiny_lm("static")
    session = DecodingSession(lm)
    rows, _ = session.add([text_row(200)[0]])
    before = session.num_bytes()
    for part in text_row(2000, seed=1)[:, 1:].split(16, dim=1):
        session.read(part, rows)
    after = session.num_bytes()
    assert {name: after[name] - before[name] for name in after if name != "global transformer"} == {
        "entropy model": 0,
        "local encoder": 0,
        "local decoder": 0,
    }
    assert after["global transformer"] > before["global transformer"]


def test_without_native_code_pytorch_decodes(monkeypatch):
    monkeypatch.setattr(library, "load", lambda *source, **options: None)
    session = DecodingSession(tiny_lm("space"))
    assert not session.is_native
    session.read(torch.tensor([[70]]), session.start(1))


def test_boundaries_that_are_given_are_kept():
    model, ids = tiny_blt("as-wide-as-vectors"), text_row(40)
    ends = random_ends(*ids.shape)
    state = NativeState(model, batch=1, max_rollback=4)
    found = state.read(ids, ends, np.array([0]))
    assert torch.equal(state.decoding.ends, ends)
    torch.testing.assert_close(found, model(ids, Patches(ends=ends)), atol=2e-5, rtol=2e-5)
