r"""`POST /v1/chat/completions`: a conversation, written down as one text that the model continues.

The template is plain, since no model of blt has been trained on conversations yet: each message is its speaker's name,
a colon, a space, what was said, and an empty line; then `Assistant: ` stands for the answer to come. The answer ends
where the next `User:` or `System:` would stand, or where the model ends the text.
"""

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from blt.codec import Utf8Stream
from blt.generation import Alternative, ByteLogprob
from blt.serving.errors import APIError
from blt.serving.plan import Plan, plan_of
from blt.serving.protocol import ChatRequest, Message
from blt.serving.rows import Answer, Finish, News
from blt.serving.state import State, finish_reason, usage
from blt.serving.streams import event
from blt.serving.tokens import token_name

SPEAKERS = {"system": "System", "developer": "System", "user": "User", "assistant": "Assistant"}
"""The name of each role in the text."""

STOPS = ("\n\nUser:", "\n\nSystem:")
"""What ends an answer besides the request's own stop strings."""

TEMPLATE = (
    "{% for message in messages %}{{ {'system': 'System', 'developer': 'System', 'user': 'User', "
    "'assistant': 'Assistant'}[message['role']] }}: {{ message['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)
"""The template in Jinja's language, for programs that apply it themselves."""


def written_down(messages: Sequence[Message]) -> str:
    """Return a conversation as the text that is continued."""
    said = [f"{SPEAKERS[message.role]}: {_content(message)}\n\n" for message in messages]
    return "".join(said) + "Assistant: "


def _content(message: Message) -> str:
    return message.content if isinstance(message.content, str) else "".join(part.text for part in message.content)


async def plan_chat(state: State, body: ChatRequest) -> Plan:
    """Return what is to be continued.

    Raises:
        APIError, ConfigurationError: a field that cannot be, or is beyond a limit.
    """
    if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
        raise APIError("max_tokens, max_completion_tokens: differ, and mean the same; give one", param="max_tokens")
    if body.top_logprobs is not None and not body.logprobs:
        raise APIError("top_logprobs: goes with logprobs alone; set logprobs to true", param="top_logprobs")
    return await plan_of(
        body,
        [written_down(body.messages).encode()],
        limits=state.config,
        max_tokens=body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        more_stops=STOPS,
    )


async def chat(state: State, body: ChatRequest) -> dict[str, Any]:
    """Return a whole answer."""
    plan = await plan_chat(state, body)
    found = await state.continued(plan)
    finishes = [news.finish for news in found if news.finish is not None]
    choices = []
    for number, (news, finish) in enumerate(zip(found, finishes, strict=True)):
        text = news.new_bytes.decode("utf-8", errors="replace")
        choice: dict[str, Any] = {
            "index": number,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": _logprobs(body, _entries(news)),
        }
        if body.return_bytes:
            choice["hex"] = news.new_bytes.hex()
        choices.append(choice | _finished(finish, body))
    return state.head("chat.completion", "chatcmpl") | {"choices": choices, "usage": usage(plan.prompts, finishes)}


async def stream_chat(state: State, body: ChatRequest) -> tuple[Answer, AsyncIterator[str]]:
    """Return an answer on its way, and the pieces of its stream.

    Raises:
        APIError: there is no room for it.
    """
    start = time.perf_counter()
    plan = await plan_chat(state, body)
    answer = await state.submitted(plan, is_streamed=True)
    return answer, _pieces(state, body, plan, answer, start)


async def _pieces(state: State, body: ChatRequest, plan: Plan, answer: Answer, start: float) -> AsyncIterator[str]:
    head = state.head("chat.completion.chunk", "chatcmpl")
    has_usage = body.stream_options is not None and body.stream_options.include_usage
    if has_usage:
        head["usage"] = None
    writers = [_Writer(body, number) for number in range(plan.num_choices)]
    yield "".join(event(head | {"choices": [writer.opening()]}) for writer in writers)
    finishes: list[Finish] = []
    async for found in state.changes(answer, start):
        choices = [choice for number, news in found for choice in writers[number].choices(news)]
        if choices:
            yield "".join(event(head | {"choices": [choice]}) for choice in choices)
        finishes += [news.finish for _, news in found if news.finish is not None]
    if has_usage:
        yield event(head | {"choices": [], "usage": usage(plan.prompts, finishes)})


class _Writer:
    """Turns what comes of a text into the choices of a stream."""

    def __init__(self, body: ChatRequest, number: int) -> None:
        self._body, self._number = body, number
        self._utf8 = Utf8Stream()
        self._entries: list[ByteLogprob] = []

    def opening(self) -> dict[str, Any]:
        """Return who speaks."""
        return self._choice({"role": "assistant", "content": ""}) | _OPEN

    def choices(self, news: News) -> list[dict[str, Any]]:
        """Return what is sent of news: text, and its end as a choice of its own."""
        self._entries += _entries(news)
        text = self._utf8.feed(news.new_bytes)
        if news.finish is not None:
            text += self._utf8.finish()
        found = []
        is_over = news.finish is not None
        if text or (self._body.return_bytes and news.new_bytes) or (is_over and self._entries):
            count = len(self._entries) - (0 if self._body.return_bytes else self._utf8.num_held)
            found.append(self._choice({"content": text}, self._entries[:count], news.new_bytes) | _OPEN)
            del self._entries[:count]
        if news.finish is not None:
            found.append(self._choice({}) | _finished(news.finish, self._body))
        return found

    def _choice(
        self, delta: dict[str, Any], entries: Sequence[ByteLogprob] = (), new_bytes: bytes = b""
    ) -> dict[str, Any]:
        logprobs = _logprobs(self._body, entries) if entries else None
        choice: dict[str, Any] = {"index": self._number, "delta": delta, "logprobs": logprobs}
        return choice | {"hex": new_bytes.hex()} if self._body.return_bytes else choice


_OPEN = {"finish_reason": None}


def _finished(finish: Finish, body: ChatRequest) -> dict[str, Any]:
    """Return why an answer is over; that the next speaker would come is told as the end of the answer alone."""
    stop = None if finish.stop_string is None else finish.stop_string.decode()
    return {"finish_reason": finish_reason(finish), "stop_reason": stop if stop in body.stop else None}


def _entries(news: News) -> list[ByteLogprob]:
    end = news.finish.end_logprob if news.finish is not None else None
    return [*news.logprobs, *([] if end is None else [end])]


def _logprobs(body: ChatRequest, entries: Sequence[ByteLogprob]) -> dict[str, Any] | None:
    """Return log-probabilities in the shape of chats: an entry for each byte, which tells the byte itself."""
    if not body.logprobs:
        return None
    content = [_described(entry) | {"top_logprobs": [_described(one) for one in entry.top]} for entry in entries]
    return {"content": content, "refusal": None}


def _described(entry: ByteLogprob | Alternative) -> dict[str, Any]:
    one = None if entry.byte is None else [entry.byte]
    return {"token": token_name(entry.byte), "bytes": one, "logprob": entry.logprob}
