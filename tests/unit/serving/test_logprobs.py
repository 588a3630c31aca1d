"""Log-probabilities: of prompts and new bytes, by names that tell every byte apart."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.codec import encode
from blt.evaluation.expectations import expected_bytes
from blt.generation import generate
from blt.serving.tokens import EOS_NAME, TextOffsets, token_name
from running_server import scripted

PROMPT = "Zoë 魚"


def test_no_two_bytes_have_one_name():
    names = [token_name(byte) for byte in (*range(256), None)]
    assert len(set(names)) == 257
    assert (token_name(0x61), token_name(0xE6), token_name(None)) == ("a", "bytes:\\xe6", "<|endoftext|>")


def test_echo_has_an_entry_for_each_byte_of_the_prompt_but_no_figure_for_the_first(server, client):
    options = {"model": "tiny", "prompt": PROMPT, "max_tokens": 4, "temperature": 0, "logprobs": 2}
    found = client.completions.create(**options, echo=True).choices[0]
    data, told = PROMPT.encode(), found.logprobs
    expected = expected_bytes(server.lm, data)
    alone = generate(server.lm, PROMPT, max_new_bytes=4, temperature=0, logprobs=2)
    assert found.text == PROMPT + alone.continuation
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset)
    assert len(told.tokens) == len(data) + len(alone.new_bytes)
    assert told.tokens == [token_name(byte) for byte in data + alone.new_bytes]
    assert (told.token_logprobs[0], told.top_logprobs[0]) == (None, None)
    assert told.token_logprobs[1 : len(data)] == [float(one) for one in expected.byte_logprobs()[1:-1]]
    assert told.token_logprobs[len(data) :] == [entry.logprob for entry in alone.logprobs]
    assert told.text_offset[: len(data)] == [0, 1, 2, 2, 3, 4, 4, 4]
    for name, logprob, top in list(zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True))[1:]:
        assert top[name] == logprob
        assert 2 <= len(top) <= 3
        assert max(top.values()) >= logprob


def test_echo_without_new_bytes_scores_the_prompt_alone(client):
    found = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=0, logprobs=0, echo=True).choices[0]
    assert found.text == PROMPT
    assert len(found.logprobs.token_logprobs) == len(PROMPT.encode())
    assert all(math.isfinite(one) for one in found.logprobs.token_logprobs[1:])


def test_a_bos_that_is_named_has_an_entry_of_its_own(server, client):
    ids = encode(PROMPT, bos=True).tolist()
    found = client.completions.create(model="tiny", prompt=ids, max_tokens=0, logprobs=1, echo=True).choices[0]
    assert found.text == PROMPT
    expected = expected_bytes(server.lm, PROMPT).byte_logprobs()[:-1]
    assert found.logprobs.token_logprobs == [None, *(float(one) for one in expected)]
    assert found.logprobs.tokens[0] == "<|beginoftext|>"


def test_a_text_that_the_model_ends_has_an_entry_for_its_end(server, client, monkeypatch):
    scripted(monkeypatch, "ab")
    found = client.completions.create(model="tiny", prompt="Tom", max_tokens=9, logprobs=1, echo=True).choices[0]
    assert found.logprobs.tokens == [*"Tomab", EOS_NAME]
    assert found.logprobs.text_offset == [0, 1, 2, 3, 4, 5]
    assert math.isfinite(found.logprobs.token_logprobs[-1])
    chunks = list(client.completions.create(model="tiny", prompt="Tom", max_tokens=9, logprobs=1, stream=True))
    streamed = [name for c in chunks for one in c.choices if one.logprobs for name in one.logprobs.tokens]
    assert streamed == ["a", "b", EOS_NAME]


@pytest.mark.parametrize("echo", [True, False])
def test_a_stream_has_the_entries_of_the_whole_answer(server, client, monkeypatch, echo):
    scripted(monkeypatch, "ü魚 ok")
    options = {"model": "tiny", "prompt": PROMPT, "max_tokens": 99, "logprobs": 1, "echo": echo}
    whole = client.completions.create(**options).choices[0]
    parts = [one for chunk in client.completions.create(**options, stream=True) for one in chunk.choices]
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        joined = [entry for part in parts if part.logprobs for entry in getattr(part.logprobs, name)]
        assert joined == getattr(whole.logprobs, name)
    for part in parts[:-1]:
        assert len(part.text.encode()) == len([name for name in part.logprobs.tokens if name != EOS_NAME])
    offsets = whole.logprobs.text_offset
    shown = [whole.text[start:end] for start, end in zip(offsets, [*offsets[1:], None], strict=True)]
    assert "".join(shown) == whole.text
    assert len(set(offsets[:-1])) == len(whole.text)


def test_a_chat_tells_the_byte_of_each_entry(server, client, monkeypatch):
    scripted(monkeypatch, "é!")
    options = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "logprobs": True, "top_logprobs": 2}
    found = client.chat.completions.create(**options).choices[0].logprobs.content
    assert [entry.bytes for entry in found] == [[0xC3], [0xA9], [0x21], None]
    assert [entry.token for entry in found] == ["bytes:\\xc3", "bytes:\\xa9", "!", EOS_NAME]
    assert all(len(entry.top_logprobs) == 2 for entry in found)
    chunks = list(client.chat.completions.create(**options, stream=True))
    streamed = [entry for c in chunks for one in c.choices if one.logprobs for entry in one.logprobs.content]
    assert streamed == found


@given(st.binary(max_size=20) | st.text(max_size=9).map(str.encode))
@settings(deadline=None, max_examples=100)
def test_offsets_point_into_the_text_that_is_shown_and_never_back(data):
    offsets, text = TextOffsets(), data.decode("utf-8", errors="replace")
    found = [offsets.feed(byte) for byte in data]
    assert found == sorted(found)
    assert offsets.end == len(text)
    assert all(place < len(text) for place in found)
    for place, byte in zip(found, data, strict=True):
        if byte < 0x80:
            assert text[place] == chr(byte)


@given(st.text(max_size=12).filter(lambda text: "\ufffd" not in text))
@settings(deadline=None)
def test_offsets_count_characters(text):
    offsets = TextOffsets()
    found = [offsets.feed(byte) for byte in text.encode()]
    assert found == [number for number, character in enumerate(text) for _ in character.encode()]
