"""The front of several replicas, with replicas that fail as no real one does on demand."""

import asyncio
import json

import httpx
import pytest

from blt.serving import ServingConfig, front
from blt.serving.app import create_app
from blt.serving.errors import APIError
from blt.serving.front import create_front
from blt.serving.guard import _Cut
from blt.serving.replica import Replica
from running_server import new_lm

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
PIECE = {"type": "http.response.body", "body": b'data: {"choices":[]}\n\n', "more_body": True}
LOST = APIError("the replica has ended", status=503, code="replica_lost", retry_after=1)


class Scripted:
    """Replicas that answer with these messages; an exception among them is raised, and the end of them a silence."""

    def __init__(self, *script):
        self.script, self.asked, self.is_closed = script, [], False

    async def answer(self, scope, body):
        self.asked.append((scope, body))
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                yield [step]
                await asyncio.sleep(0)
            if "silence" in scope["path"]:
                await asyncio.Event().wait()
        finally:
            self.is_closed = True

    async def families(self):
        return []

    def paths(self):
        return ["/v1/completions", "/health"]


def told(replicas, *, path="/v1/completions", method="POST", **config):
    """What a client gets: status, headers, body."""

    async def ask():
        app = create_front(replicas, ServingConfig(**config))
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, json={"prompt": "x"}, headers={"Authorization": "Bearer sk-1"})

    return asyncio.run(ask())


def test_a_replica_that_is_lost_before_it_answers_is_an_error_as_openai_has_them():
    answer = told(Scripted(LOST))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == "replica_lost"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_replica_that_is_lost_in_a_stream_is_an_event_and_done_still_comes_last():
    answer = told(Scripted(START, PIECE, LOST))
    before, failed, done, rest = answer.text.split("\n\n")
    assert (before, done, rest) == ('data: {"choices":[]}', "data: [DONE]", "")
    assert json.loads(failed.removeprefix("data: "))["error"]["code"] == "replica_lost"


def test_a_stream_that_stops_without_its_end_is_not_taken_for_a_whole_one():
    answer = told(Scripted(START, PIECE))
    assert '"error"' in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")


def test_half_of_a_whole_answer_ends_the_connection():
    start = START | {"headers": [(b"content-type", b"application/json")]}
    with pytest.raises(_Cut):
        told(Scripted(start, PIECE, LOST))


def test_an_unknown_fault_says_nothing_of_itself():
    answer = told(Scripted(ValueError("the secret prompt")))
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text


def test_a_replica_that_answers_nothing_is_not_waited_for_beyond_the_limit():
    replicas = Scripted(START, PIECE)
    answer = told(replicas, path="/v1/silence", max_seconds=1)
    assert '"code":"time_limit"' in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
    assert replicas.is_closed


def test_a_replica_is_told_no_key_and_whole_bodies():
    replicas = Scripted(START, PIECE | {"more_body": False})
    assert told(replicas, api_key="sk-1").status_code == 200
    [(scope, body)] = replicas.asked
    assert body == b'{"prompt":"x"}'
    assert not any(b"sk-1" in value for _, value in scope["headers"])
    assert {"app", "state", "client", "extensions"}.isdisjoint(scope)


def test_who_has_no_key_reaches_no_replica():
    replicas = Scripted(START)
    assert told(replicas, api_key="sk-2").status_code == 401
    assert told(replicas, allowed_hosts=("localhost",)).status_code == 403
    assert told(replicas, path="/v1/completions", max_body_bytes=1024).status_code == 200
    assert len(replicas.asked) == 1


def test_a_client_that_goes_away_is_told_to_the_replica_which_frees_its_row():
    async def go():
        app = create_app(new_lm(), ServingConfig(model_name="tiny", max_new_bytes=10**6))
        replica = Replica(app, name="a")
        await replica.start()

        class One(Scripted):
            answer = staticmethod(replica.answer)

        outside, worker = create_front(One(), ServingConfig()), app.state.serving.worker
        content = json.dumps({"prompt": "x", "max_tokens": 10**6, "stream": True, "logit_bias": {"2": -100}}).encode()
        incoming, got = [{"type": "http.request", "body": content, "more_body": False}], []

        async def receive():
            if incoming:
                return incoming.pop()
            while len(got) < 3:
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}

        async def send(message):
            got.append(message)

        headers = [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")]
        scope = {"type": "http", "asgi": {"version": "3.0"}, "method": "POST", "path": "/v1/completions"}
        scope |= {"raw_path": b"/v1/completions", "query_string": b"", "root_path": "", "scheme": "http"}
        await asyncio.wait_for(outside(scope | {"headers": headers, "http_version": "1.1"}, receive, send), 20)
        assert worker.num_admitted == 0
        assert app.state.serving.metrics.disconnects.value() == 1
        [found] = [one.samples for one in replica.families() if one.name == "blt_disconnects_total"]
        assert found == ['blt_disconnects_total{replica="a"} 1']
        assert replica.is_alive
        await replica.stop()
        assert not replica.is_alive

    asyncio.run(go())


def test_websockets_are_closed():
    sent = []

    async def send(message):
        sent.append(message)

    app = create_front(Scripted(), ServingConfig())
    asyncio.run(app({"type": "websocket", "path": "/"}, None, send))
    assert sent == [{"type": "websocket.close"}]
    with pytest.raises(NotImplementedError):  # by which ASGI servers learn that an application has no lifespan
        asyncio.run(app({"type": "lifespan"}, None, send))


@pytest.mark.parametrize(("path", "method"), [("/health", "POST"), ("/metrics", "GET")])
def test_replicas_that_are_silent_are_no_fault_of_who_asks(path, method, monkeypatch):
    class Silent(Scripted):
        async def answer(self, scope, body):
            await asyncio.Event().wait()
            yield []

        async def families(self):
            raise TimeoutError("one of them has not answered in time")

    monkeypatch.setattr(front, "_QUICK_SECONDS", 0.05)
    answer = told(Silent(), path=path, method=method)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == "replica_silent"


def test_a_fault_within_a_stream_is_logged_by_its_kind_alone(caplog):
    assert '"code":"internal_error"' in told(Scripted(START, PIECE, KeyError("the secret prompt"))).text
    assert [record.getMessage() for record in caplog.records] == ["KeyError within a stream"]
    caplog.clear()
    told(Scripted(START, PIECE, APIError("too long", status=400)))
    assert not caplog.records
