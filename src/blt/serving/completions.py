"""`POST /v1/completions`: continue prompts."""

import math
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from blt.codec import BOS_ID, Utf8Stream
from blt.evaluation.expectations import Expectations, expected_bytes
from blt.generation import Alternative, ByteLogprob
from blt.serving.errors import APIError
from blt.serving.plan import Plan, plan_of
from blt.serving.protocol import CompletionRequest, Prompt
from blt.serving.rows import Answer, Finish, News
from blt.serving.state import State, finish_reason, usage
from blt.serving.streams import event
from blt.serving.tokens import TextOffsets, name_of_id, token_name


class LogprobList:
    """Log-probabilities in the shape of completions: four lists with one entry per byte."""

    def __init__(self) -> None:
        self._offsets = TextOffsets()
        self._entries: list[tuple[str, float | None, dict[str, float] | None, int]] = []

    def add_prompt(self, prompt: Prompt, expected: Expectations, *, num_top: int) -> None:
        """Add an entry for each byte of a prompt; the first has no log-probability."""
        if prompt.names_bos:
            self._add(name_of_id(BOS_ID), None, None, 0)
        own = expected.byte_logprobs()
        for number, (byte, top) in enumerate(zip(prompt.data, expected.alternatives(num_top), strict=False)):
            name, place = token_name(byte), self._offsets.feed(byte)
            if number == 0 and not prompt.names_bos:
                self._add(name, None, None, place)
            else:
                self._add(name, float(own[number]), _named(name, float(own[number]), top), place)

    def add(self, entry: ByteLogprob) -> None:
        """Add an entry for a new byte, or for the end."""
        name = token_name(entry.byte)
        place = self._offsets.end if entry.byte is None else self._offsets.feed(entry.byte)
        self._add(name, entry.logprob, _named(name, entry.logprob, entry.top), place)

    def take(self, *, num_held: int = 0) -> dict[str, Any]:
        """Return what has been added since this was asked last, but for the newest entries that are held back."""
        count = len(self._entries) - num_held
        taken, self._entries = self._entries[:count], self._entries[count:]
        tokens, logprobs, top, places = (list(column) for column in zip(*taken, strict=True)) if taken else ([],) * 4
        return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": places}

    def _add(self, name: str, logprob: float | None, top: dict[str, float] | None, place: int) -> None:
        self._entries.append((name, logprob, top, place))


def _named(name: str, logprob: float, top: Sequence[Alternative]) -> dict[str, float]:
    """Return the likeliest by name; what was chosen is always among them."""
    return {token_name(one.byte): one.logprob for one in top} | {name: logprob}


async def plan_completion(state: State, body: CompletionRequest) -> tuple[Plan, dict[bytes, Expectations]]:
    """Return what is to be continued, and how the model reads prompts that are scored.

    Raises:
        APIError, ConfigurationError: a field that cannot be, or is beyond a limit.
    """
    plan = await plan_of(
        body,
        [prompt.data for prompt in body.prompt],
        limits=state.config,
        max_tokens=body.max_tokens,
        logprobs=body.logprobs,
        best_of=body.best_of,
    )
    expected: dict[bytes, Expectations] = {}
    if body.echo and body.logprobs is not None:
        longest, limit = max(map(len, plan.prompts)), state.config.max_read_bytes
        if longest > limit:
            message = f"prompt: {longest} bytes, of which this server scores {limit}; leave echo or logprobs out"
            raise APIError(message, param="prompt", code="context_length_exceeded")
        for data in set(plan.prompts):
            expected[data] = await state.worker.call(partial(expected_bytes, state.lm, data))
    return plan, expected


async def complete(state: State, body: CompletionRequest) -> dict[str, Any]:
    """Return a whole answer."""
    plan, expected = await plan_completion(state, body)
    found = await state.continued(plan)
    choices: list[dict[str, Any]] = []
    for number, prompt in enumerate(body.prompt):
        candidates = found[number * plan.num_candidates : (number + 1) * plan.num_candidates]
        for news in _best(candidates, plan.num_choices):
            writer = _Writer(body, prompt, expected.get(prompt.data))
            choices.append(writer.whole(len(choices), news))
    finishes = [news.finish for news in found if news.finish is not None]
    head = state.head("text_completion", "cmpl")
    return head | {"choices": choices, "usage": usage(plan.prompts, finishes)}


async def stream_completion(state: State, body: CompletionRequest) -> tuple[Answer, AsyncIterator[str]]:
    """Return an answer on its way, and the pieces of its stream.

    Raises:
        APIError: there is no room for it.
    """
    start = time.perf_counter()
    plan, expected = await plan_completion(state, body)
    answer = await state.submitted(plan, is_streamed=True)
    writers = [
        _Writer(body, prompt, expected.get(prompt.data)) for prompt in body.prompt for _ in range(plan.num_choices)
    ]
    return answer, _pieces(state, body, plan, answer, writers, start)


async def _pieces(
    state: State, body: CompletionRequest, plan: Plan, answer: Answer, writers: "Sequence[_Writer]", start: float
) -> AsyncIterator[str]:
    head = state.head("text_completion", "cmpl")
    has_usage = body.stream_options is not None and body.stream_options.include_usage
    if has_usage:
        head["usage"] = None
    opening = [writer.opening(number) for number, writer in enumerate(writers)]
    if body.echo:
        yield "".join(event(head | {"choices": [choice]}) for choice in opening)
    finishes: list[Finish] = []
    async for found in state.changes(answer, start):
        choices = [choice for number, news in found for choice in writers[number].choices(number, news)]
        if choices:
            yield "".join(event(head | {"choices": [choice]}) for choice in choices)
        finishes += [news.finish for _, news in found if news.finish is not None]
    if has_usage:
        yield event(head | {"choices": [], "usage": usage(plan.prompts, finishes)})


class _Writer:
    """Turns what comes of a text into choices.

    Args:
        body: what was asked for.
        prompt: what is continued.
        expected: how the model reads the prompt, where it is scored.
    """

    def __init__(self, body: CompletionRequest, prompt: Prompt, expected: Expectations | None) -> None:
        self._echoed = prompt.data if body.echo else b""
        self._returns_bytes = bool(body.return_bytes)
        self._utf8 = Utf8Stream()
        self._logprobs: LogprobList | None = None
        if body.logprobs is not None:
            self._logprobs = LogprobList()
            if expected is not None:
                self._logprobs.add_prompt(prompt, expected, num_top=body.logprobs)

    def whole(self, number: int, news: News) -> dict[str, Any]:
        """Return the one choice of a whole answer."""
        assert news.finish is not None
        self._add(news)
        text = (self._echoed + news.new_bytes).decode("utf-8", errors="replace")
        return self._choice(number, text, self._echoed + news.new_bytes) | _finished(news.finish)

    def opening(self, number: int) -> dict[str, Any]:
        """Return what is sent before anything has been written: the prompt, where it is wanted."""
        return self._choice(number, self._utf8.feed(self._echoed), self._echoed, num_held=self._utf8.num_held) | _OPEN

    def choices(self, number: int, news: News) -> list[dict[str, Any]]:
        """Return what is sent of news: text, and its end as a choice of its own."""
        self._add(news)
        text, is_over = self._utf8.feed(news.new_bytes), news.finish is not None
        if is_over:
            text += self._utf8.finish()
        found = []
        has_end = news.finish is not None and news.finish.end_logprob is not None
        if text or has_end or (self._returns_bytes and news.new_bytes):
            num_held = 0 if self._returns_bytes else self._utf8.num_held
            found.append(self._choice(number, text, news.new_bytes, num_held=num_held) | _OPEN)
        if news.finish is not None:
            found.append(self._choice(number, "", b"", has_logprobs=False) | _finished(news.finish))
        return found

    def _add(self, news: News) -> None:
        if self._logprobs is None:
            return
        for entry in news.logprobs:
            self._logprobs.add(entry)
        if news.finish is not None and news.finish.end_logprob is not None:
            self._logprobs.add(news.finish.end_logprob)

    def _choice(
        self, number: int, text: str, data: bytes, *, num_held: int = 0, has_logprobs: bool = True
    ) -> dict[str, Any]:
        logprobs = self._logprobs.take(num_held=num_held) if self._logprobs is not None and has_logprobs else None
        choice: dict[str, Any] = {"index": number, "text": text, "logprobs": logprobs}
        return choice | {"hex": data.hex()} if self._returns_bytes else choice


_OPEN = {"finish_reason": None, "stop_reason": None}


def _finished(finish: Finish) -> dict[str, Any]:
    stop = finish.stop_string
    return {"finish_reason": finish_reason(finish), "stop_reason": None if stop is None else stop.decode()}


def _best(candidates: Sequence[News], count: int) -> Sequence[News]:
    """Return the likeliest per byte, best first, of more candidates than are wanted; else all in their order."""
    return candidates if len(candidates) == count else sorted(candidates, key=_mean_logprob, reverse=True)[:count]


def _mean_logprob(news: News) -> float:
    end = news.finish.end_logprob if news.finish is not None else None
    entries = [*news.logprobs, *([] if end is None else [end])]
    return sum(entry.logprob for entry in entries) / len(entries) if entries else -math.inf
