"""One of several processes that serve: a model of its own behind the same application, which a front calls.

In: requests as ASGI scopes with whole bodies. Out: the application's messages, as soon as they are there.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from fastapi import FastAPI
from starlette.types import Message, Scope

from blt.serving.app import counted_paths
from blt.serving.metrics import Family
from blt.serving.state import State


class Replica:
    """Answers what a front passes on.

    Args:
        app: as `create_app` makes it, for no key and any host: the front has checked both.
        name: of this process, in metrics.
    """

    def __init__(self, app: FastAPI, *, name: str) -> None:
        self._app, self._name = app, name
        self._state: State = app.state.serving
        self._life = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Start the application on the event loop that runs now."""
        await self._life.enter_async_context(self._app.router.lifespan_context(self._app))

    async def stop(self) -> None:
        """End it."""
        await self._life.aclose()

    @property
    def paths(self) -> list[str]:
        """The paths that are counted by their names."""
        return counted_paths(self._app)

    @property
    def is_alive(self) -> bool:
        """Whether the thread of the model runs."""
        return self._state.worker.is_alive

    def families(self) -> list[Family]:
        """Return what has been counted here, but for answers by status: the front counts those that clients see."""
        metrics = self._state.metrics
        return [one for one in metrics.families(replica=self._name) if one.name != metrics.requests.name]

    async def answer(self, scope: Scope, body: bytes) -> AsyncGenerator[Sequence[Message], None]:
        """Answer a request; closing the generator tells the application that the client has gone.

        Args:
            scope: of the request.
            body: of the request, whole.

        Yields:
            messages of the application: all that there are by then.
        """
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        unread, gone = [body], asyncio.Event()

        async def receive() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def run() -> None:
            try:
                await self._app(scope, receive, messages.put)
            finally:
                messages.put_nowait(None)

        task = asyncio.create_task(run())
        try:
            is_over = False
            while not is_over:
                found = [await messages.get()]
                while not messages.empty():
                    found.append(messages.get_nowait())
                is_over = found[-1] is None
                if told := [message for message in found if message is not None]:
                    yield told
            await task
        finally:
            gone.set()
            await asyncio.gather(task, return_exceptions=True)
