"""The one address of several replicas: checks who asks, passes requests on, and says so where a replica is lost."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Protocol, runtime_checkable

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blt.serving.config import ServingConfig
from blt.serving.errors import APIError, api_error
from blt.serving.guard import Guard
from blt.serving.metrics import CONTENT_TYPE, Family, Metric, Metrics, text_of
from blt.serving.state import time_limit
from blt.serving.streams import DONE, GoneError, cancelled, event, logged, until_gone

_QUICK_SECONDS = 10
"""For what any replica that is well answers at once."""
_PASSED_ON = ("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path")
_KEPT_BACK = frozenset([b"authorization", b"cookie", b"proxy-authorization"])
"""Headers that no replica needs: they hold what only the front may know."""


@runtime_checkable
class Replicas(Protocol):
    """Processes that answer."""

    def answer(self, scope: Scope, body: bytes) -> AsyncGenerator[Sequence[Message], None]:
        """Send a request to one of them, as `Replica.answer` does.

        Raises:
            APIError: none can, or the one that answered has ended.
        """
        ...

    async def families(self) -> list[list[Family]]:
        """Return what each of them has counted."""
        ...

    def paths(self) -> list[str]:
        """Return the paths of the application that are counted by their names."""
        ...


def create_front(replicas: Replicas, config: ServingConfig) -> ASGIApp:
    """Return the application that clients talk to.

    Args:
        replicas: who answers.
        config: what is allowed.
    """
    metrics = Metrics()
    return Guard(Front(replicas, config, metrics), config=config, metrics=metrics, paths=replicas.paths())


class Front:
    """Passes requests on to replicas.

    Args:
        replicas: who answers.
        config: what is allowed.
        metrics: what is counted.
    """

    def __init__(self, replicas: Replicas, config: ServingConfig, metrics: Metrics) -> None:
        self._replicas, self._config, self._metrics = replicas, config, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; WebSockets are closed, and lifespan events not supported."""
        if scope["type"] == "lifespan":
            raise NotImplementedError  # ASGI: a server then goes on without lifespan events
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
        elif scope["path"] == "/metrics" and scope["method"] == "GET":
            await self._tell_metrics(scope, receive, send)
        else:
            await self._pass_on(scope, receive, send)

    async def _tell_metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with what all replicas have counted, each under its own label."""
        async with _quickly():
            found = await self._replicas.families()
        running = Metric("blt_replicas_running", "Replicas that answer.")
        running.set(len(found))
        requests = self._metrics.requests.family()
        text = text_of([requests, running.family(), *(one for each in found for one in each)])
        await PlainTextResponse(text, headers={"Content-Type": CONTENT_TYPE})(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a replica's answer, for as long as the client is there and time allows."""
        body = await _whole(receive)
        limit = _quickly() if scope["path"] == "/health" else time_limit(self._config.max_seconds)
        answering = asyncio.ensure_future(self._answer(_described(scope), body, limit, send))
        gone = asyncio.ensure_future(until_gone(receive))
        try:
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            await cancelled(answering, gone)

    async def _answer(self, scope: Scope, body: bytes, limit: AbstractAsyncContextManager[None], send: Send) -> None:
        """Pass on what a replica answers; where it fails in the midst of a stream, an error becomes the last event."""
        is_begun = is_stream = is_whole = False
        try:
            async with limit, aclosing(self._replicas.answer(scope, body)) as answer:
                async for messages in answer:
                    for message in messages:
                        await send(message)
                        if message["type"] == "http.response.start":
                            is_begun, is_stream = True, _is_stream(message)
                        else:
                            is_whole = not message.get("more_body", False)
            if not is_whole:
                raise APIError("the replica has stopped in the midst of its answer; try again", status=502)
        except Exception as error:
            if is_whole:
                return  # the client has all of it
            if not is_begun or not is_stream:
                raise  # the guard answers, or, where an answer has begun, cuts the connection
            failed = logged(api_error(error), error)
            last = event(failed.body) + DONE
            await send({"type": "http.response.body", "body": last.encode(), "more_body": False})


@asynccontextmanager
async def _quickly() -> AsyncIterator[None]:
    """Limit what takes no time where a replica is well.

    Raises:
        APIError: none is.
    """
    try:
        async with asyncio.timeout(_QUICK_SECONDS):
            yield
    except TimeoutError:
        raise APIError("no replica answers; try again", status=503, code="replica_silent", retry_after=1) from None


async def _whole(receive: Receive) -> bytes:
    """Return the body of a request.

    Raises:
        GoneError: the client has gone before its end.
    """
    parts, has_more = [], True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise GoneError
        parts.append(message.get("body", b""))
        has_more = message.get("more_body", False)
    return b"".join(parts)


def _described(scope: Scope) -> Scope:
    """Return what a replica is told of a request: no key, and no object of this process."""
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"] if name.lower() not in _KEPT_BACK]
    return {name: scope[name] for name in _PASSED_ON if name in scope} | {"headers": headers}


def _is_stream(start: Message) -> bool:
    return any(name.lower() == b"content-type" and b"event-stream" in value for name, value in start["headers"])
