"""What a stream holds: whole characters, no part of a stop string, a finish, a count, an error where one happens."""

import json
import socket

import openai
import pytest

from blt.errors import ConfigurationError, ModelFolderError
from blt.generation import Request
from running_server import running, scripted, until

FAMILY = "Zoë 👩‍👩‍👧 魚½ ok"


def texts(events):
    return [choice["text"] for event in events for choice in event["choices"]]


def test_no_piece_of_a_stream_has_half_a_character(server, monkeypatch):
    scripted(monkeypatch, FAMILY)
    pieces = texts(server.events("/v1/completions", {"prompt": "Tom", "max_tokens": 99}))
    assert "".join(pieces) == FAMILY
    assert "�" not in "".join(pieces)
    assert len(pieces) > 5


def test_bytes_that_are_no_text_are_shown_once_and_told_exactly_where_that_is_asked_for(server, monkeypatch):
    data = b"a\xe2\x82b\xff\xf0\x9f"
    scripted(monkeypatch, data)
    body = {"prompt": "Tom", "max_tokens": 99, "valid_utf8": False, "return_bytes": True}
    events = server.events("/v1/completions", body)
    choices = [choice for event in events for choice in event["choices"]]
    assert bytes.fromhex("".join(choice["hex"] for choice in choices)) == data
    assert "".join(choice["text"] for choice in choices) == data.decode(errors="replace")
    whole = server.post("/v1/completions", body).json()["choices"][0]
    assert (whole["hex"], whole["text"]) == (data.hex(), data.decode(errors="replace"))
    plain = server.events("/v1/completions", body | {"return_bytes": False})
    assert all("hex" not in choice for event in plain for choice in event["choices"])
    assert "".join(texts(plain)) == data.decode(errors="replace")


@pytest.mark.parametrize(
    ("stop", "shown", "reason"),
    [
        ("\n\n", "One.\nTwo.", "\n\n"),
        (["three", "Two.\n\nT", "o.\n"], "One.\nTw", "o.\n"),
        (["Two", "Tw"], "One.\n", "Tw"),
        (["wo", "Two"], "One.\n", "Two"),
        (["ree.!"], "One.\nTwo.\n\nThree.", None),
    ],
)
def test_the_stop_string_that_is_complete_first_ends_a_text_and_is_told(server, monkeypatch, stop, shown, reason):
    scripted(monkeypatch, "One.\nTwo.\n\nThree.")
    body = {"prompt": "Tom", "stop": stop, "max_tokens": 99}
    whole = server.post("/v1/completions", body).json()
    choice = whole["choices"][0]
    assert (choice["text"], choice["stop_reason"], choice["finish_reason"]) == (shown, reason, "stop")
    events = server.events("/v1/completions", body)
    assert "".join(texts(events)) == shown
    assert events[-1]["choices"][0]["stop_reason"] == reason
    chat = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]} | _without(body)).json()
    assert (chat["choices"][0]["message"]["content"], chat["choices"][0]["stop_reason"]) == (shown, reason)


def _without(body):
    return {name: value for name, value in body.items() if name != "prompt"}


def test_what_a_text_wrote_of_a_stop_string_is_counted_and_not_shown(server, monkeypatch):
    scripted(monkeypatch, "abc<end>")
    found = server.post("/v1/completions", {"prompt": "Tom", "stop": "<end>", "max_tokens": 99, "logprobs": 0}).json()
    assert found["usage"]["completion_tokens"] == 8
    assert found["choices"][0]["logprobs"]["tokens"] == ["a", "b", "c"]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize(
    ("planted", "message", "kind"),
    [
        (ConfigurationError("the regex is too complex; simplify it"), "too complex", "invalid_request_error"),
        (ModelFolderError("weights are broken"), "weights are broken", "server_error"),
        (ZeroDivisionError("secret"), "the server failed", "server_error"),
    ],
)
def test_an_error_inside_a_stream_is_an_event_and_done_still_comes_last(
    server, monkeypatch, path, planted, message, kind
):
    choose, count = Request.choose, []

    def failing(request, logits):
        if len(count) == 3:
            raise planted
        count.append(1)
        return choose(request, logits)

    scripted(monkeypatch, "abcdef")
    monkeypatch.setattr(Request, "choose", failing)
    prompt = {"prompt": "Tom"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "a"}]}
    *before, last = server.events(path, prompt)
    assert message in last["error"]["message"]
    assert last["error"]["type"] == kind
    assert "secret" not in json.dumps(last)
    shown = [choice.get("text", choice.get("delta", {}).get("content")) for e in before for choice in e["choices"]]
    assert "".join(one or "" for one in shown) == "abc"
    count.clear()
    whole = server.post(path, prompt)
    assert whole.status_code == (400 if kind == "invalid_request_error" else 500)
    assert message in whole.json()["error"]["message"]
    count.clear()
    with server.openai() as client, pytest.raises(openai.APIError, match=message):
        list(client.completions.create(model="tiny", prompt="Tom", stream=True))


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_client_that_goes_away_frees_its_row_within_a_step(is_streamed):
    with running(max_new_bytes=10_000_000, max_prompt_bytes=100) as server:
        gone = server.state.metrics.disconnects.value
        body = json.dumps(
            {"prompt": "Tom", "max_tokens": 10_000_000, "stream": is_streamed, "n": 2, "logit_bias": {"2": -100}}
        )
        head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head.encode() + body.encode())
            until(lambda: server.state.metrics.rows.value() == 2)
            assert gone() == 0
        until(lambda: server.state.metrics.rows.value() == 0)
        assert gone() == 1
        (engine,) = server.state.worker._engines.values()
        assert engine.num_running == engine.session.num_rows == 0
        assert server.state.worker.num_admitted == 0
        assert server.post("/v1/completions", {"prompt": "Tom", "max_tokens": 3}).status_code == 200


def test_a_client_that_goes_away_while_it_waits_is_forgotten():
    with running(max_rows=1, max_new_bytes=10_000_000) as server:
        with server.openai() as client:
            stream = client.completions.create(
                model="tiny", prompt="Tom", max_tokens=10_000_000, stream=True, extra_body={"logit_bias": {"2": -100}}
            )
            next(iter(stream))
            with server.openai() as other:
                waiting = other.with_options(timeout=0.3)
                with pytest.raises(openai.APITimeoutError):
                    waiting.completions.create(model="tiny", prompt="a")
            until(lambda: server.state.metrics.waiting.value() == 0)
            until(lambda: server.state.worker.num_admitted == 1)
            stream.close()
        until(lambda: server.state.worker.num_admitted == 0)


def test_no_character_of_a_text_divides_an_event_for_clients_that_split_lines_as_python_does(server, monkeypatch):
    text = "a\x85b\u2028c\u2029d\x1ce\x0bf\rg\nh"
    scripted(monkeypatch, text)
    lines = server.post("/v1/completions", {"prompt": "Tom", "stream": True}).text.splitlines()
    assert lines[-2:] == ["data: [DONE]", ""]
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2] if line]
    assert "".join(texts(events)) == text
