"""Law: a prompt that is read in slices, between the steps of others, is continued as one that is read at once."""

import pytest
from tiny_models import RULES, tiny_lm

from blt.decoder import library
from blt.errors import ConfigurationError
from blt.generation import DraftConfig, Drafter, Engine, GenerationConfig, Request
from blt.lm import DecodingSession

PROMPTS = ["Tom had a red ball. " * 40, "", "Zoë 魚", "x" * 97, "The cat sat on the mat. " * 9]


def requests():
    return [
        Request(prompt, GenerationConfig(seed=number, max_new_bytes=12, temperature=1.0, valid_utf8=False, logprobs=2))
        for number, prompt in enumerate(PROMPTS)
    ]


def alone(lm):
    for request in (expected := requests()):
        engine = Engine(lm)
        engine.add([request])
        while engine.step():
            pass
    return [request.generation() for request in expected]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("slice_bytes", [1, 7, 64])
def test_prompts_in_slices_are_continued_as_at_once(rule, slice_bytes):
    lm = tiny_lm(rule)
    engine, joining = Engine(lm, prompt_bytes_per_step=slice_bytes), requests()
    engine.add(joining[:2])
    for request in joining[2:]:
        engine.step()
        engine.add([request])
    while engine.step():
        pass
    assert [request.generation() for request in joining] == alone(lm)
    assert engine.num_running == engine.session.num_rows == 0


def test_prompts_in_slices_are_continued_as_at_once_with_drafts():
    lm = tiny_lm()
    drafter = Drafter(DraftConfig(by="decoder", max_draft=4, min_probability=0.0))
    engine, joining = Engine(lm, prompt_bytes_per_step=16, drafter=drafter), requests()
    engine.add(joining)
    while engine.step():
        pass
    assert [request.generation() for request in joining] == alone(lm)


@pytest.mark.skipif(library.library() is None, reason="no compiler here")
def test_a_short_prompt_waits_for_one_slice_of_a_long_one():
    engine = Engine(tiny_lm(), prompt_bytes_per_step=32)
    assert engine.session.reads_in_parts
    config = GenerationConfig(max_new_bytes=3, temperature=0, valid_utf8=False)
    long, short = Request("a" * 10_000, config), Request("ab", config)
    engine.add([long, short])
    steps = 0
    while short.stopped_by is None:
        engine.step()
        steps += 1
    assert steps <= 4
    assert long.stopped_by is None
    engine.remove(long)
    assert engine.num_running == engine.session.num_rows == 0
    assert engine.step() == []


def test_a_prompt_that_cannot_be_read_ends_alone(monkeypatch):
    engine = Engine(tiny_lm(), prompt_bytes_per_step=4)
    first, second = Request("a", GenerationConfig(max_new_bytes=5)), Request("long prompt", GenerationConfig())
    engine.add([first])
    engine.step()
    prefill = DecodingSession.prefill
    monkeypatch.setattr(DecodingSession, "prefill", lambda *a: (_ for _ in ()).throw(MemoryError("full")))
    engine.add([second])
    while engine.step():
        pass
    monkeypatch.setattr(DecodingSession, "prefill", prefill)
    assert (second.stopped_by, second.generation().error) == ("error", "full")
    assert first.stopped_by in ("length", "eos")
    assert engine.session.num_rows == 0


def test_a_slice_of_no_bytes_is_refused():
    with pytest.raises(ConfigurationError, match="prompt_bytes_per_step: at least 1, got 0"):
        Engine(tiny_lm(), prompt_bytes_per_step=0)
