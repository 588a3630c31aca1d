"""Continuing prompts, whole, in batches and as streams."""

import dataclasses
import inspect

import pytest
import torch

import blt.generation
from blt.codec import BYTE_OFFSET, EOS_ID, encode
from blt.errors import ConfigurationError
from blt.generation import Engine, GenerationConfig, GenerationOptions, Request, generate, generate_batch, stream
from blt.lm import DecodingSession, DecodingStep

PROMPTS = ("", "Tom had a red ball.", b"\0", b"\xff\xfe", "🙂".encode()[:2], "Zoë " * 30)
UNUSUAL = "bits of a \ud800 lone surrogate"


@pytest.fixture
def talker(tiny_lm, monkeypatch):
    """A model that never ends a text."""
    change_logits(monkeypatch, lambda logits: logits.index_fill(-1, torch.tensor([EOS_ID]), -1e9))
    return tiny_lm


def change_logits(monkeypatch, change):
    """Let every session predict something else, which the host then chooses from."""
    monkeypatch.setattr(DecodingSession, "is_native", property(lambda session: False))
    add, think, read = DecodingSession.add, DecodingStep.forward, DecodingSession.read

    def changed_add(session, prompts):
        rows, logits = add(session, prompts)
        return rows, change(logits)

    monkeypatch.setattr(DecodingSession, "add", changed_add)
    monkeypatch.setattr(DecodingStep, "forward", lambda session: change(think(session)))
    monkeypatch.setattr(DecodingSession, "read", lambda session, ids, rows: change(read(session, ids, rows)))


@torch.inference_mode()
def greedy_after_each_byte(lm, data: bytes) -> bytes:
    """Return the likeliest byte after each byte, by one full forward; that it is causal is a law of its own."""
    logits = lm(encode(data, bos=True)[None])[0, 1:]
    return bytes(logits[:, BYTE_OFFSET:].argmax(-1).tolist())


def test_greedy_with_caches_is_greedy_without_over_300_bytes(talker):
    found = generate(talker, "Tom had", max_new_bytes=300, temperature=0, valid_utf8=False)
    assert found.new_bytes == greedy_after_each_byte(talker, found.data)[len("Tom had") - 1 : -1]
    assert len(found.new_bytes) == 300
    assert found.stopped_by == "length"


def test_text_is_prompt_and_continuation_and_the_rest_follows(talker):
    found = generate(talker, "Tom", max_new_bytes=9, seed=0)
    assert found.data == b"Tom" + found.new_bytes
    assert len(found.new_bytes) == 9
    assert found.text == found.data.decode(errors="replace")
    assert found.continuation == found.new_bytes.decode(errors="replace")


def test_equal_seeds_give_equal_texts_and_others_others(talker):
    texts = [generate(talker, "Tom", max_new_bytes=20, temperature=1, seed=seed).text for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    unseeded = {generate(talker, "Tom", max_new_bytes=20, temperature=1).text for _ in range(3)}
    assert len(unseeded) == 3


def test_a_row_of_a_batch_is_the_row_alone_whatever_stands_beside_it(tiny_lm):
    options = {"max_new_bytes": 25, "temperature": 1.5, "stop": [bytes([byte]) for byte in range(20)]}
    together = generate_batch(tiny_lm, PROMPTS, seed=7, **options)
    alone = [generate(tiny_lm, prompt, seed=7 + number, **options) for number, prompt in enumerate(PROMPTS)]
    assert together == alone
    assert len({len(result.new_bytes) for result in together}) > 3  # some left early, and the others went on


def test_no_prompts_give_no_texts(tiny_lm):
    assert generate_batch(tiny_lm, []) == []


@pytest.mark.parametrize("prompt", [*PROMPTS, UNUSUAL])
def test_pieces_of_a_stream_joined_are_the_continuation_or_with_the_prompt_the_text(talker, prompt):
    options = {"max_new_bytes": 20, "temperature": 1.0, "seed": 3}
    whole = generate(talker, prompt, **options)
    pieces = list(stream(talker, prompt, **options))
    assert "".join(pieces) == whole.continuation
    assert all(pieces)
    assert "".join(stream(talker, prompt, with_prompt=True, **options)) == whole.text


def test_a_prompt_that_ends_within_a_character_is_shown_with_what_completes_it(talker, monkeypatch):
    half, rest = "🙂".encode()[:2], "🙂".encode()[2:]
    scripted(monkeypatch, rest + rest)
    assert list(stream(talker, half, with_prompt=True, max_new_bytes=2)) == ["🙂"]
    assert generate(talker, half, max_new_bytes=2).text == "🙂"


def scripted(monkeypatch, text: bytes, *, eos: bool = False) -> None:
    """Make every model say this, byte by byte."""
    ids = iter(encode(text, eos=eos).tolist())

    def logits(original):
        scores = torch.full_like(original, -1e9)
        scores[..., next(ids)] = 0
        return scores

    change_logits(monkeypatch, logits)


@pytest.mark.parametrize(
    ("stop", "expected", "stopped_by"),
    [
        ("\n\n", "One.\nTwo.", "stop"),
        (["Two", b"One"], "", "stop"),
        ("nowhere", "One.\nTwo.\n\nThree.", "eos"),
        ((), "One.\nTwo.\n\nThree.", "eos"),
        (["ree.!"], "One.\nTwo.\n\nThree.", "eos"),
        (b"\nT", "One.", "stop"),
    ],
)
def test_a_stop_string_ends_the_text_and_is_not_part_of_it(tiny_lm, stop, expected, stopped_by, monkeypatch):
    scripted(monkeypatch, b"One.\nTwo.\n\nThree.", eos=True)
    found = generate(tiny_lm, "Three.\n\n", stop=stop)
    assert (found.continuation, found.stopped_by) == (expected, stopped_by)


def test_a_stream_shows_no_part_of_a_stop_string_nor_half_a_character(tiny_lm, monkeypatch):
    scripted(monkeypatch, "Zoë <|en… <|end|>".encode())
    assert list(stream(tiny_lm, stop="<|end|>")) == ["Z", "o", "ë", " ", "<|en", "…", " "]


def test_a_length_limit_shows_what_a_stop_string_held_back(tiny_lm, monkeypatch):
    scripted(monkeypatch, b"ab<|e")
    found = generate(tiny_lm, stop="<|end|>", max_new_bytes=5)
    assert (found.new_bytes, found.stopped_by) == (b"ab<|e", "length")


def test_no_new_bytes_leave_the_prompt_alone(tiny_lm):
    found = generate(tiny_lm, "Tom", max_new_bytes=0)
    assert (found.text, found.new_bytes, found.stopped_by) == ("Tom", b"", "length")
    assert list(stream(tiny_lm, "Tom", max_new_bytes=0)) == []


@pytest.mark.parametrize(
    "options", [{"max_new_bytes": -1}, {"stop": ""}, {"stop": ["a", b""]}, {"temperature": -1.0}, {"top_k": 0}]
)
def test_options_that_cannot_be_are_refused_at_once_also_by_a_stream(tiny_lm, options):
    for function in (generate, stream, tiny_lm.generate, tiny_lm.stream):
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            function(tiny_lm, "Tom", **options) if function in (generate, stream) else function("Tom", **options)


def test_an_unknown_option_is_refused_by_name(tiny_lm):
    with pytest.raises(ConfigurationError, match="temprature"):
        generate(tiny_lm, "Tom", temprature=1)


def test_the_options_are_the_fields_of_their_configuration():
    fields = {field.name for field in dataclasses.fields(GenerationConfig)}
    assert set(GenerationOptions.__annotations__) == fields
    documented = inspect.getdoc(generate)
    assert all(f"`{name}`" in documented for name in fields)


def test_the_model_itself_generates_and_streams(talker):
    options = {"max_new_bytes": 12, "seed": 1}
    found = talker.generate("Tom", **options)
    assert found == generate(talker, "Tom", **options)
    assert "".join(talker.stream("Tom", **options)) == found.continuation


def test_a_prompt_costs_one_pass_and_a_byte_one_step(talker, monkeypatch):
    passes, steps = [], []
    add, read, forward = DecodingSession.add, DecodingSession.read, DecodingStep.forward
    monkeypatch.setattr(DecodingSession, "add", lambda *a: passes.append(1) or add(*a))
    monkeypatch.setattr(DecodingSession, "read", lambda *a: steps.append(1) or read(*a))
    monkeypatch.setattr(DecodingStep, "forward", lambda *a: steps.append(1) or forward(*a))
    request = Request("Tom had a red ball. " * 20, GenerationConfig(max_new_bytes=30))
    engine = Engine(talker)
    engine.add([request])
    while engine.step():
        pass
    assert (len(passes), len(steps)) == (1, 29)  # the last byte is not read
    assert engine.num_passes == 29


def test_a_byte_costs_one_pass_within_the_native_decoder(tiny_lm):
    request = Request("Tom had a red ball. " * 20, GenerationConfig(max_new_bytes=30, seed=0))
    engine = Engine(tiny_lm)
    engine.add([request])
    while engine.step():
        pass
    assert engine.num_passes == len(request.new_bytes) - (request.stopped_by == "length")


@pytest.mark.parametrize("name", ["generate", "stream", "stream_bytes", "generate_batch"])
def test_an_option_that_is_not_known_is_refused_with_the_nearest(tiny_lm, name):
    with pytest.raises(ConfigurationError, match=r"^max_new_byte: unknown option; did you mean 'max_new_bytes'\?$"):
        getattr(blt.generation, name)(tiny_lm, ["a"] if name == "generate_batch" else "a", max_new_byte=3)
