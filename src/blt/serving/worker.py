"""The one thread that owns the model: it reads prompts, writes texts, and answers questions about texts between steps.

The event loop sends it messages (`_Join`, `_Leave`, `_Call`) and gets news of the rows back, once per step for all of
them. Requests join and leave between two steps; nothing of a step depends on who else takes part.
"""

import asyncio
import concurrent.futures
import dataclasses
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from blt.configuration import check
from blt.generation import Engine
from blt.lm import LanguageModel, StaticConfig
from blt.patching import PatchRule
from blt.serving.config import ServingConfig
from blt.serving.errors import APIError
from blt.serving.metrics import Metrics
from blt.serving.rows import Answer, Finish, News, Row

Result = TypeVar("Result")

_MAX_RETRY_AFTER = 60
_FULL_RATE_ROWS = 8
"""With more texts at once, each stream sends fewer and longer pieces, so that sending costs no more than writing."""


@dataclasses.dataclass(frozen=True)
class _Join:
    rows: Sequence[Row]


@dataclasses.dataclass(frozen=True)
class _Leave:
    rows: Sequence[Row]


@dataclasses.dataclass(frozen=True)
class _Call:
    function: Callable[[], Any]
    future: "concurrent.futures.Future[Any]"


class _Stop:
    """The thread ends."""


class Worker:
    """Continues texts and answers questions, in a thread of its own.

    Args:
        lm: the model, which nothing else uses while the worker lives.
        config: what is allowed.
        metrics: what is counted.
    """

    def __init__(self, lm: LanguageModel, config: ServingConfig, metrics: Metrics) -> None:
        self.lm, self.config, self.metrics = lm, config, metrics
        self._messages: queue.SimpleQueue[_Join | _Leave | _Call | _Stop] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # of the event loop:
        self.num_admitted = 0
        """Texts that are being written or wait, and questions."""
        self._mean_seconds = 1.0
        # of the thread:
        self._engines: dict[float, Engine] = {}  # by factor of the thresholds
        self._waiting: deque[Row] = deque()
        self._rows: list[Row] = []  # in an engine
        self._calls: deque[_Call] = deque()
        self._has_to_stop = False
        self._published = 0.0  # when rows that go on have been told last

    def start(self) -> None:
        """Prepare the model, and start the thread; news go to the event loop that runs now.

        Raises:
            ConfigurationError: static steps were asked for and cannot be compiled.
        """
        self._engine(1.0)  # here the decoder is compiled and the weights are packed, not in the first request
        self._loop = asyncio.get_running_loop()
        is_ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(is_ready,), name="blt-worker", daemon=True)
        self._thread.start()
        is_ready.result()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    async def stop(self) -> None:
        """End the thread after its step; what is not over by then fails."""
        if self._thread is not None:
            self._messages.put(_Stop())
            await asyncio.to_thread(self._thread.join)

    # ------------------------------------------------------------------------------------------- for the event loop

    def submit(self, answer: Answer) -> None:
        """Queue the rows of an answer; `release` must follow.

        Raises:
            APIError: there is no room for them, now (429) or ever (400).
        """
        count = len(answer.rows)
        self._admit(count)
        self._messages.put(_Join(answer.rows))

    def release(self, answer: Answer) -> None:
        """Return the room of an answer's rows; those that are not over leave before the next step."""
        self.num_admitted -= len(answer.rows)
        if unfinished := [row for row in answer.rows if row.finish is None]:
            self._messages.put(_Leave(unfinished))

    async def call(self, function: Callable[[], Result]) -> Result:
        """Return what a function returns that uses the model, run between two steps.

        Raises:
            APIError: too much is waiting.
        """
        self._admit(1)
        future: concurrent.futures.Future[Result] = concurrent.futures.Future()
        try:
            self._messages.put(_Call(function, future))
            return await asyncio.wrap_future(future)
        finally:
            self.num_admitted -= 1

    def note_seconds(self, seconds: float) -> None:
        """Learn how long an answer took, to tell others when to come back."""
        self._mean_seconds += 0.1 * (seconds - self._mean_seconds)

    def _admit(self, count: int) -> None:
        room = self.config.max_rows + self.config.max_waiting
        if count > room:
            raise APIError(f"{count} texts at once, of which this server takes {room}; send fewer in one request")
        if self.num_admitted + count > room:
            rounds = self.num_admitted / self.config.max_rows
            seconds = max(1, min(_MAX_RETRY_AFTER, math.ceil(rounds * self._mean_seconds)))
            self.metrics.rejected.add()
            message = f"{self.num_admitted} texts are being written or wait already; try again in {seconds} s"
            raise APIError(message, status=429, code="overloaded", retry_after=seconds)
        self.num_admitted += count

    def _deliver(self, news: Sequence[tuple[Row, News]]) -> None:
        for row, one in news:
            row.receive(one)

    # -------------------------------------------------------------------------------------------------- in the thread

    def _run(self, is_ready: "concurrent.futures.Future[None]") -> None:
        try:
            # CUDA graphs belong to the thread that recorded them
            self._engine(1.0).warm_up()
        except BaseException as error:  # noqa: BLE001 (it belongs to who starts the server)
            is_ready.set_exception(error)
            return
        is_ready.set_result(None)
        while not self._has_to_stop:
            self._take_messages()
            self._answer_one_call()
            self._fill_rows()
            self._step()
        failure = APIError("the server is shutting down; try another one", status=503, code="shutting_down")
        self._publish(
            [(row, News(b"", (), Finish(stopped_by="error", error=failure))) for row in [*self._rows, *self._waiting]]
        )
        for call in self._calls:
            call.future.cancel()

    def _take_messages(self) -> None:
        """Take all messages; wait for one where there is nothing else to do."""
        is_idle = not (self._rows or self._waiting or self._calls)
        while is_idle or not self._messages.empty():
            message = self._messages.get()
            is_idle = False
            if isinstance(message, _Join):
                self._waiting.extend(message.rows)
            elif isinstance(message, _Leave):
                self._let_leave(message.rows)
            elif isinstance(message, _Call):
                self._calls.append(message)
            else:
                self._has_to_stop = True
                return

    def _let_leave(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row in self._waiting:
                self._waiting.remove(row)
            elif row in self._rows:
                self._rows.remove(row)
                self._engines[row.threshold_factor].remove(row.request)
                self._drop_unused_engines()

    def _answer_one_call(self) -> None:
        """Answer one question that somebody still waits for, so that texts are written on between two of them."""
        while self._calls:
            call = self._calls.popleft()
            if not call.future.set_running_or_notify_cancel():
                continue
            try:
                call.future.set_result(call.function())
            except BaseException as error:  # noqa: BLE001 (it belongs to who asked)
                call.future.set_exception(error)
            return

    def _fill_rows(self) -> None:
        """Add waiting rows to the engines while there is room."""
        over = []
        while self._waiting and len(self._rows) < self.config.max_rows:
            row = self._waiting.popleft()
            try:
                if row.request.stopped_by is None:
                    self._engine(row.threshold_factor).add([row.request])
            except Exception as error:  # noqa: BLE001 (such as a lack of memory: it ends this request alone)
                row.request.fail(error)
            if row.request.stopped_by is None:
                self._rows.append(row)
            else:
                over.append(row)
        self._publish([(row, _news(row)) for row in over])

    def _engine(self, factor: float) -> Engine:
        if factor not in self._engines:
            rule = scaled(self.lm.patch_rule, factor)
            lm = self.lm
            if factor != 1:
                lm = LanguageModel(self.lm.blt, patch_rule=rule, entropy_model=self.lm.entropy_model).eval()
            # Other thresholds come and go with requests, which would wait for the compiler.
            static = StaticConfig(num_rows=self.config.max_rows) if self.config.static and factor == 1 else None
            self._engines[factor] = Engine(lm, prompt_bytes_per_step=self.config.prompt_bytes_per_step, static=static)
        return self._engines[factor]

    def _drop_unused_engines(self) -> None:
        """Forget the engines of factors that nobody asks for any more, and the rows that they keep for others."""
        for factor in [factor for factor, engine in self._engines.items() if factor != 1 and not engine.num_running]:
            del self._engines[factor]

    def _step(self) -> None:
        """Run a step of every engine, and pass on the new bytes."""
        start = time.perf_counter()
        for factor, engine in list(self._engines.items()):
            if not engine.num_running:
                continue
            try:
                engine.step()
            except Exception as error:  # noqa: BLE001 (nobody knows whose fault it was: all of its requests end)
                del self._engines[factor]
                for row in self._rows:
                    if row.threshold_factor == factor:
                        row.request.fail(error)
        if self._rows:
            self.metrics.step_seconds.observe(time.perf_counter() - start)
        changed = self._changed()
        self._rows = [row for row in self._rows if row.request.stopped_by is None]
        self._drop_unused_engines()
        self.metrics.rows.set(len(self._rows))
        self.metrics.waiting.set(len(self._waiting))
        self._publish([(row, _news(row)) for row in changed])

    def _changed(self) -> list[Row]:
        """Return the rows that have to be told: those that are over or have just begun; all streams, but not often.

        All streams are told at once: the event loop then sends a piece of each and sleeps again. A clock of its own for
        each stream would wake it as often as there are streams, and take a core from the model every time.
        """
        now = time.perf_counter()
        interval = self.config.stream_interval_ms / 1000 * max(1.0, len(self._rows) / _FULL_RATE_ROWS)
        are_told = now >= self._published + interval
        if are_told:
            self._published = now
        return [
            row
            for row in self._rows
            if row.request.stopped_by is not None
            or (row.is_streamed and len(row.request.new_bytes) > row.num_shown and (are_told or not row.num_shown))
        ]

    def _publish(self, news: Sequence[tuple[Row, News]]) -> None:
        assert self._loop is not None
        if news and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, news)


def _news(row: Row) -> News:
    """Return what has come of a row since this was asked last."""
    request = row.request
    start, row.num_shown = row.num_shown, len(request.new_bytes)
    finish = None
    if request.stopped_by is not None:
        finish = Finish(
            stopped_by=request.stopped_by,
            stop_string=request.stop_string,
            end_logprob=request.end_logprob,
            num_written=request.num_written,
            error=request.error,
        )
    return News(bytes(request.new_bytes[start:]), tuple(request.logprobs[start : row.num_shown]), finish)


def scaled(rule: PatchRule, factor: float) -> PatchRule:
    """Return a patch rule whose thresholds are multiplied.

    Raises:
        ConfigurationError: it has none.
    """
    if factor == 1:
        return rule
    thresholds = {name: getattr(rule, name) for name in ("threshold", "rise_threshold") if hasattr(rule, name)}
    check(bool(thresholds), f"threshold_factor: the patch rule {type(rule).__name__} has no threshold; leave it out")
    return dataclasses.replace(rule, **{name: value * factor for name, value in thresholds.items()})
