"""A request's texts on their way from the worker to the event loop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from blt.generation import ByteLogprob, Request
from blt.generation.request import StopReason


@dataclass(frozen=True, kw_only=True)
class Finish:
    """Why a text is over."""

    stopped_by: StopReason
    """As in `Generation`."""
    stop_string: bytes | None = None
    """The stop string that came."""
    end_logprob: ByteLogprob | None = None
    """How likely the end was, where the model chose it and log-probabilities were asked for."""
    num_written: int = 0
    """Bytes that the model wrote, those of a stop string included."""
    error: Exception | None = None
    """What went wrong, after `error`."""


@dataclass(frozen=True)
class News:
    """What has come of a text since the last news."""

    new_bytes: bytes
    """Bytes that may be shown."""
    logprobs: Sequence[ByteLogprob]
    """One for each of them, where they were asked for."""
    finish: Finish | None
    """Why it is over; None while it is not."""


class Row:
    """A text that is continued; the worker's thread owns `request`, the event loop everything else.

    Args:
        request: the prompt and how it is continued.
        threshold_factor: what the thresholds of the patch rule are multiplied by.
        answer: of which it is a part.
    """

    def __init__(self, request: Request, *, threshold_factor: float, answer: "Answer") -> None:
        self.request, self.threshold_factor = request, threshold_factor
        self.is_streamed = answer.is_streamed
        self.num_shown = 0
        """How many bytes the worker has passed on."""
        self.finish: Finish | None = None
        self._answer = answer
        self._new_bytes = bytearray()
        self._logprobs: list[ByteLogprob] = []

    def receive(self, news: News) -> None:
        """Take what the worker has passed on."""
        self._new_bytes += news.new_bytes
        self._logprobs += news.logprobs
        self.finish = news.finish
        if self.is_streamed or self._answer.is_over:
            self._answer.wake()

    def take(self) -> News:
        """Return what has come since this was asked last."""
        news = News(bytes(self._new_bytes), tuple(self._logprobs), self.finish)
        self._new_bytes.clear()
        self._logprobs.clear()
        return news


class Answer:
    """The rows of one request.

    Args:
        requests: what is continued; row number i is that of request number i.
        threshold_factor: what the thresholds of the patch rule are multiplied by.
        is_streamed: pass on bytes as they come, and not only at the end.
    """

    def __init__(self, requests: Sequence[Request], *, threshold_factor: float = 1.0, is_streamed: bool) -> None:
        self.is_streamed = is_streamed
        self.rows = [Row(request, threshold_factor=threshold_factor, answer=self) for request in requests]
        self._changed = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether every row is."""
        return all(row.finish is not None for row in self.rows)

    def wake(self) -> None:
        """Wake `changes` and `whole`, which wait for something new."""
        self._changed.set()

    async def whole(self) -> list[News]:
        """Wait until every row is over; return what came of each."""
        while not self.is_over:
            await self._changed.wait()
            self._changed.clear()
        return [row.take() for row in self.rows]

    async def changes(self) -> AsyncIterator[list[tuple[int, News]]]:
        """Wait for news, and return them with the numbers of their rows, until all is over."""
        told: set[int] = set()
        while len(told) < len(self.rows):
            await self._changed.wait()
            self._changed.clear()
            found = [(number, row.take()) for number, row in enumerate(self.rows) if number not in told]
            told |= {number for number, news in found if news.finish is not None}
            if found := [(number, news) for number, news in found if news.new_bytes or news.finish is not None]:
                yield found
