"""Whatever is sent, the answer has OpenAI's shape: what was wrong, and the way out."""

import json

import openai
import pytest

from running_server import running, until

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
PROMPT = {"prompt": "Tom"}


def checked(answer, status=400):
    """The error that an answer tells, whose shape is checked."""
    assert answer.status_code == status, answer.text
    (error,) = answer.json().values()
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert "\n" not in error["message"]
    return error


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("max_tokens", -1, "greater than or equal to 0"),
        ("max_tokens", 4097, "4097 bytes, of which this server writes 4096"),
        ("max_tokens", 10**400, "max_tokens"),
        ("max_tokens", "5", "valid integer"),
        ("max_tokens", 1.5, "valid integer"),
        ("max_tokens", True, "valid integer"),
        ("temperature", -0.5, "greater than or equal to 0"),
        ("temperature", "hot", "valid number"),
        ("top_p", 0, "greater than 0"),
        ("top_p", 1.5, "less than or equal to 1"),
        ("top_k", 0, "top_k"),
        ("n", 0, "n: "),
        ("n", 10**6, "n: "),
        ("seed", -1, "seed"),
        ("seed", 2**64, "seed"),
        ("stop", "", "empty stop string"),
        ("stop", ["a", 3], "expected a text or a list of texts"),
        ("stop", ["a"] * 17, "at most 16"),
        ("stop", "\ud800", "lone surrogate"),
        ("logit_bias", {"300": 1}, "300"),
        ("logit_bias", {"a": 1}, "no id"),
        ("logit_bias", {"101": 1000}, "from -100 to 100"),
        ("logit_bias", [1], "expected an object"),
        ("presence_penalty", 3, "less than or equal to 2"),
        ("repetition_window", 5, "goes with repetition_penalty"),
        ("regex", "(", "regex"),
        ("regex", "(?=a)", "regex"),
        ("json_schema", {"type": "no type"}, "json_schema"),
        ("json_schema", {"minimum": 10**30}, "cannot be kept exact"),
        ("response_format", {"type": "xml"}, "response_format.type"),
        ("response_format", {"type": "json_schema"}, "goes with its type"),
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": 3}}},
            "json_schema",
        ),
        ("stream", "yes", "valid boolean"),
        ("stream_options", {"include_usage": True}, "goes with stream alone"),
        ("stream_options", {"include_obfuscation": True}, "does not support"),
        ("threshold_factor", 0.1, "threshold_factor"),
        ("user", 7, "valid string"),
        ("max_token", 5, "max_token: unknown field; did you mean 'max_tokens'?"),
        ("model", "gpt-9", "this server has 'tiny'"),
        ("model", "\udfff", "lone surrogate"),
    ],
)
@pytest.mark.parametrize(("path", "body"), [("/v1/completions", PROMPT), ("/v1/chat/completions", CHAT)])
def test_a_field_that_cannot_be_is_refused_by_name(server, path, body, field, value, message):
    content = json.dumps(body | {field: value})
    answer = server.http.post(path, content=content, headers={"Content-Type": "application/json"})
    error = checked(answer, 404 if value == "gpt-9" else 400)
    assert message in error["message"]
    assert error["type"] == ("not_found_error" if value == "gpt-9" else "invalid_request_error")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": 5}, "expected a text, ids, or a list of them"),
        ({"prompt": []}, "expected a text, ids, or a list of them"),
        ({"prompt": ["a", 5]}, "expected texts alone"),
        ({"prompt": [[5], "a"]}, "expected lists of ids alone"),
        ({"prompt": [5, 260]}, "260 is no id of a byte"),
        ({"prompt": [5, 1]}, "1 is no id of a byte (b + 4); BOS (1) may stand first"),
        ({"prompt": [True]}, "True is no id"),
        ({"prompt": "a\ud800"}, "lone surrogate"),
        ({"prompt": "a" * 65537}, "65537 bytes, of which this server reads 65536"),
        ({"prompt": ["a"] * 129}, "at most 128"),
        ({"prompt": "a", "suffix": "b"}, "suffix: this server does not support it; leave it out"),
        ({"prompt": "a", "best_of": 1, "n": 2}, "best_of: at least n"),
        ({"prompt": "a", "best_of": 3, "n": 2, "stream": True}, "cannot know which will be best"),
        ({"prompt": "a", "logprobs": 258}, "logprobs"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({"prompt": "a" * 16001, "logprobs": 0, "echo": True}, "of which this server scores 16000"),
        ({"prompt": ["a"] * 128, "n": 3}, "384 texts at once, of which this server takes 288"),
        ({"prompt": "a", "regex": "a", "json_schema": {}}, "give one of them"),
        ({"prompt": "a", "regex": "a", "response_format": {"type": "json_object"}}, "leave one out"),
    ],
)
def test_a_prompt_that_cannot_be_continued_is_refused(server, fields, message):
    answer = server.http.post(
        "/v1/completions", content=json.dumps(fields), headers={"Content-Type": "application/json"}
    )
    assert message in checked(answer)["message"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "a", "name": "Tom"}]}, "name: this server does not support it"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content: a part of type"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages.0.content: a part of type None, of which"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content: input should be a valid string, got 5"),
        (CHAT | {"tools": [{}]}, "tools: this server does not support it"),
        (CHAT | {"top_logprobs": 2}, "goes with logprobs alone"),
        (CHAT | {"max_tokens": 3, "max_completion_tokens": 4}, "give one"),
        (CHAT | {"logprobs": 2}, "valid boolean"),
        (CHAT | {"reasoning_effort": "high"}, "reasoning_effort"),
    ],
)
def test_a_conversation_that_cannot_be_continued_is_refused(server, fields, message):
    assert message in checked(server.post("/v1/chat/completions", fields))["message"]


def test_fields_that_ask_for_nothing_are_taken(server):
    inert = {
        "suffix": None,
        "user": "me",
        "logit_bias": None,
        "stop": None,
        "stream": False,
        "response_format": {"type": "text"},
    }
    assert server.post("/v1/completions", PROMPT | inert | {"max_tokens": 2}).status_code == 200
    inert = {"tools": [], "tool_choice": "none", "store": False, "metadata": None, "modalities": ["text"], "n": 1}
    assert server.post("/v1/chat/completions", CHAT | inert | {"max_tokens": 2}).status_code == 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "body"),
        (b"{", "not JSON"),
        (b'{"prompt": "a"} x', "not JSON"),
        (b"[1]", "valid dictionary"),
        (b"null", ""),
        (b'"a"', ""),
        (b"\xff\xfe", ""),
        (b'{"prompt": "\xff"}', ""),
        (b'{"prompt": "a", "temperature": NaN}', "temperature"),
        (b'{"prompt": "a", "temperature": 1e999}', "temperature"),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", ""),
        (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", ""),
        (b'{"prompt": "a", "json_schema": ' + b'{"not":' * 3000 + b"{}" + b"}" * 3000 + b"}", ""),
    ],
)
def test_a_body_that_is_no_request_is_refused(server, content, message):
    answer = server.http.post("/v1/completions", content=content, headers={"Content-Type": "application/json"})
    assert message in checked(answer)["message"]


def test_a_body_of_10_mb_is_refused_with_and_without_its_length(server):
    content = json.dumps({"prompt": "a" * 10_000_000}).encode()
    headers = {"Content-Type": "application/json"}
    error = checked(server.http.post("/v1/completions", content=content, headers=headers), 413)
    assert "4194304 bytes" in error["message"]
    pieces = (content[start : start + 65536] for start in range(0, len(content), 65536))
    checked(server.http.post("/v1/completions", content=pieces, headers=headers), 413)


def test_a_body_of_another_type_is_refused(server):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", ""):
        answer = server.http.post("/v1/completions", content=b'{"prompt": "a"}', headers={"Content-Type": kind})
        assert "send JSON as application/json" in checked(answer, 415)["message"]


def test_paths_and_methods_that_there_are_not_are_told(server):
    assert checked(server.get("/v2"), 404)["code"] == "unknown_path"
    assert checked(server.get("/v1/completions"), 405)["code"] == "unknown_method"
    assert checked(server.get("/v1/models/gpt-9"), 404)["code"] == "model_not_found"
    assert server.get("/v1/models/tiny").json() == server.get("/v1/models").json()["data"][0]


def test_the_client_of_openai_raises_its_own_errors(client):
    with pytest.raises(openai.BadRequestError, match="temperature") as refused:
        client.completions.create(model="tiny", prompt="a", temperature=-1)
    assert (refused.value.param, refused.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.NotFoundError, match="gpt-9"):
        client.completions.create(model="gpt-9", prompt="a")
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "blt"


def test_what_is_too_much_is_told_to_come_back_later():
    with running(max_rows=1, max_waiting=1, max_new_bytes=10_000_000) as server, server.openai() as client:
        endless = {"model": "tiny", "prompt": "a", "max_tokens": 10_000_000, "logit_bias": {"2": -100}}
        streams = [client.completions.create(**endless, stream=True) for _ in range(2)]
        answer = server.post("/v1/completions", PROMPT)
        assert checked(answer, 429)["code"] == "overloaded"
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        with pytest.raises(openai.RateLimitError):
            client.completions.create(model="tiny", prompt="a")
        assert checked(server.post("/api/patch", {"text": "a"}), 429)["code"] == "overloaded"
        assert server.state.metrics.rejected.value() == 3
        for stream in streams:
            stream.close()
        until(lambda: server.state.worker.num_admitted == 0)
        assert server.post("/v1/completions", PROMPT | {"max_tokens": 2}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_ends_with_an_error(stream):
    with running(max_seconds=1, max_new_bytes=10_000_000) as server:
        body = PROMPT | {"max_tokens": 10_000_000, "logit_bias": {"2": -100}}
        if stream:
            error = server.events("/v1/completions", body)[-1]["error"]
        else:
            error = checked(server.post("/v1/completions", body), 408)
        assert error["code"] == "time_limit"
        until(lambda: server.state.metrics.rows.value() == 0)
