"""What all paths share: the model, what is allowed, and the worker."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from blt import __version__
from blt.lm import LanguageModel
from blt.serving.config import ServingConfig
from blt.serving.errors import APIError, api_error
from blt.serving.metrics import Metrics
from blt.serving.plan import Plan
from blt.serving.rows import Answer, Finish, News
from blt.serving.worker import Worker

FINGERPRINT = f"blt-{__version__}"
"""Of the software; equal seeds give equal texts while it, the weights and the machine stay."""


@dataclass(frozen=True)
class State:
    """What all paths share."""

    lm: LanguageModel
    config: ServingConfig
    worker: Worker
    metrics: Metrics
    created: int
    """When the server started, in seconds since 1970."""

    def head(self, kind: str, prefix: str) -> dict[str, Any]:
        """Return what every answer of OpenAI's API begins with."""
        return {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.config.model_name,
            "system_fingerprint": FINGERPRINT,
        }

    async def submitted(self, plan: Plan, *, is_streamed: bool) -> Answer:
        """Submit a plan's texts to the worker; `worker.release` must follow.

        Raises:
            APIError: there is no room for them.
        """
        requests = await plan.requests()
        answer = Answer(requests, threshold_factor=plan.threshold_factor, is_streamed=is_streamed)
        self.worker.submit(answer)
        self.metrics.prompt_bytes.add(sum(map(len, plan.prompts)))
        return answer

    async def continued(self, plan: Plan) -> list[News]:
        """Return what comes of each text of a plan."""
        start = time.perf_counter()
        answer = await self.submitted(plan, is_streamed=False)
        try:
            async with time_limit(self.config.max_seconds):
                found = await answer.whole()
        finally:
            self.worker.release(answer)
        for news in found:
            raise_failure(news.finish)
        self._note(found, start)
        return found

    async def changes(self, answer: Answer, start: float) -> AsyncIterator[Sequence[tuple[int, News]]]:
        """Return news of an answer's texts as they come."""
        is_first, over = True, []
        async with time_limit(self.config.max_seconds):
            async for found in answer.changes():
                if is_first:
                    self.metrics.first_byte_seconds.observe(time.perf_counter() - start)
                    is_first = False
                yield found
                for _, news in found:
                    raise_failure(news.finish)
                over += [news for _, news in found if news.finish is not None]
        self._note(over, start)

    def _note(self, found: Sequence[News], start: float) -> None:
        seconds = time.perf_counter() - start
        self.worker.note_seconds(seconds)
        self.metrics.answer_seconds.observe(seconds)
        self.metrics.new_bytes.add(sum(news.finish.num_written for news in found if news.finish is not None))


@asynccontextmanager
async def time_limit(seconds: int) -> AsyncIterator[None]:
    """Refuse to take longer.

    Raises:
        APIError: it took longer.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        message = f"not finished in {seconds} s, the most that this server takes; ask for less, or later"
        raise APIError(message, status=408, code="time_limit") from None


def raise_failure(finish: Finish | None) -> None:
    """Raise what a text has ended by, where that is an error.

    Raises:
        APIError: with what a client may be told.
    """
    if finish is not None and finish.error is not None:
        raise api_error(finish.error)


def finish_reason(finish: Finish) -> str:
    """Return why a text is over, as OpenAI's API calls it."""
    return "length" if finish.stopped_by == "length" else "stop"


def usage(prompts: Sequence[bytes], finishes: Sequence[Finish]) -> dict[str, Any]:
    """Count the bytes of prompts, and those that were written."""
    read, written = sum(map(len, prompts)), sum(finish.num_written for finish in finishes)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
