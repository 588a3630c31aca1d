"""`/v1/chat/completions`: a conversation as one text."""

import pytest

from blt.generation import generate
from blt.serving.chat import TEMPLATE
from running_server import scripted

MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": [{"type": "text", "text": "Who "}, {"type": "text", "text": "are you?"}]},
    {"role": "assistant", "content": "Tom."},
    {"role": "user", "content": "Tell me a story, Zoë."},
]
WRITTEN = "System: Be kind.\n\nUser: Who are you?\n\nAssistant: Tom.\n\nUser: Tell me a story, Zoë.\n\nAssistant: "


def test_an_answer_continues_the_conversation_as_it_is_written_down(server, client):
    found = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=20, seed=3, temperature=0.9)
    expected = generate(server.lm, WRITTEN, max_new_bytes=20, seed=3, temperature=0.9, stop="\n\nUser:")
    choice = found.choices[0]
    assert (choice.message.role, choice.message.content) == ("assistant", expected.continuation)
    assert choice.finish_reason in ("stop", "length")
    assert found.usage.prompt_tokens == len(WRITTEN.encode())
    assert found.object == "chat.completion"
    same = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_completion_tokens=20, seed=3, temperature=0.9
    )
    assert same.choices[0].message == choice.message


def test_the_template_for_others_gives_the_same_text():
    jinja2 = pytest.importorskip("jinja2")
    plain = [
        message | {"content": "Who are you?"} if isinstance(message["content"], list) else message
        for message in MESSAGES
    ]
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # as transformers and lm-eval have it
    for template in (environment.from_string(TEMPLATE), jinja2.Environment().from_string(TEMPLATE)):
        assert template.render(messages=plain, add_generation_prompt=True) == WRITTEN
        assert template.render(messages=plain, add_generation_prompt=False) == WRITTEN.removesuffix("Assistant: ")


def test_an_answer_ends_where_the_next_speaker_would_come(server, client, monkeypatch):
    scripted(monkeypatch, "Hello.\n\nUser: And I?")
    found = client.chat.completions.create(model="tiny", messages=MESSAGES[-1:]).choices[0]
    assert (found.message.content, found.finish_reason, found.stop_reason) == ("Hello.", "stop", None)


def test_a_stream_says_who_speaks_then_what_then_why_it_ends(server, client):
    options = {"model": "tiny", "messages": MESSAGES, "max_tokens": 20, "seed": 1, "n": 2}
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    for choice in whole.choices:
        mine = [one for chunk in chunks for one in chunk.choices if one.index == choice.index]
        assert (mine[0].delta.role, mine[0].delta.content) == ("assistant", "")
        assert "".join(one.delta.content or "" for one in mine) == choice.message.content
        assert [one.finish_reason for one in mine] == [None] * (len(mine) - 1) + [choice.finish_reason]
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


def test_an_answer_may_have_to_be_json_of_a_schema(server, client):
    import json

    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["age"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "age", "schema": schema, "strict": True}}
    found = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=60, seed=1, response_format=form)
    assert 1 <= json.loads(found.choices[0].message.content)["age"] <= 9
    anything = client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        max_tokens=60,
        seed=1,
        response_format={"type": "json_object"},
        temperature=0,
        logit_bias={"38": 50, "2": 50},
    )
    assert anything.choices[0].message.content[:1] in ('"', "{", "[", *"0123456789-tfn")
    by_regex = client.completions.create(
        model="tiny", prompt="Tom was ", max_tokens=30, extra_body={"regex": "(happy|sad)"}
    )
    assert by_regex.choices[0].text in ("happy", "sad")
