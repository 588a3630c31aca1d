"""Answers that notice when their client goes away: whole ones, and streams of events."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from blt.serving.errors import APIError, api_error
from blt.serving.metrics import Metrics

_log = logging.getLogger("blt.serving")
Result = TypeVar("Result")

DONE = "data: [DONE]\n\n"
"""The last event of every stream."""


_SEPARATORS = str.maketrans({character: f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"})
"""Of lines, as some clients take them; JSON may hold them as they are, but then an event would be torn there."""


def event(content: dict[str, Any]) -> str:
    """Return an event that carries JSON."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text if text.isascii() else text.translate(_SEPARATORS)}\n\n"


class GoneError(APIError):
    """The client has gone; nobody reads what it is told."""

    def __init__(self) -> None:
        super().__init__("the client has gone", status=499)


async def until_gone(receive: Receive) -> None:
    """Wait until the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: HTTPRequest, work: Coroutine[Any, Any, Result], metrics: Metrics) -> Result:
    """Return what some work comes to, and stop it where its client goes away before.

    Starlette calls what answers a request whether anybody still waits for it or not.

    Raises:
        GoneError: the client has gone.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(until_gone(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            metrics.disconnects.add()
            raise GoneError
        return task.result()
    finally:
        await cancelled(task, gone)


class EventStream(Response):
    """Server-sent events, one piece after another; an error inside becomes an event, and `[DONE]` is the last.

    Args:
        pieces: of the stream, each one event or several.
        close: called once the stream has ended, however it did.
        metrics: what is counted.
    """

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncIterator[str], *, close: Callable[[], None], metrics: Metrics) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})  # or nginx keeps events back
        del self.headers["content-length"]
        self._pieces, self._close, self._metrics = pieces, close, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI's signature)
        """Send the stream until it ends or the client goes away."""
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(until_gone(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                self._metrics.disconnects.add()
                return
            sending.result()
        finally:
            await cancelled(sending, gone)
            self._close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece.encode(), "more_body": True})
        except Exception as error:  # noqa: BLE001 (the status has been sent: what is wrong can only be told as an event)
            failed = event(logged(api_error(error), error).body)
            await send({"type": "http.response.body", "body": failed.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": DONE.encode(), "more_body": False})


def logged(told: APIError, error: Exception) -> APIError:
    """Log the kind of an error of ours that ends a stream, without what it says; return what the client is told."""
    if told.status >= 500:
        _log.error("%s within a stream", type(error).__name__)
    return told


async def cancelled(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
