"""Continuing prompts with a `ByteLM`."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack

import torch

from blt.codec import BYTE_OFFSET, EOS_ID, Utf8Stream, encode, to_bytes
from blt.configuration import check
from blt.generation.logprobs import ByteLogprob, byte_logprob
from blt.generation.sampling import Sampler, SamplingConfig
from blt.generation.stopping import StopWatch
from blt.lm import ByteLM, DecodingSession
from blt.shapes import Float, Tensor

Stopped = Literal["eos", "stop", "length"]
"""Why a text is over: the model ended it, a stop string came, or it is as long as was asked for."""


class GenerationOptions(TypedDict, total=False):
    """The fields of `GenerationConfig`, as keyword arguments; all may be left out."""

    max_new_bytes: int
    temperature: float | int
    top_k: int | None
    top_p: float | int | None
    min_p: float | int | None
    repetition_penalty: float | int
    repetition_window: int | None
    valid_utf8: bool | None
    regex: str | None
    json_schema: str | dict[str, Any] | None
    seed: int | None
    stop: str | bytes | Sequence[str | bytes]
    logprobs: int | None


@dataclass(frozen=True, kw_only=True)
class GenerationConfig(SamplingConfig):
    """How a prompt is continued."""

    max_new_bytes: int = 300
    """Stop after this many bytes."""
    stop: str | bytes | Sequence[str | bytes] = ()
    """Stop where one of these would come, which is left out."""
    logprobs: int | None = None
    """Also tell how likely each new byte was, and the so many likeliest in its place (0 to 257); unset: neither."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.max_new_bytes >= 0, f"max_new_bytes: at least 0, got {self.max_new_bytes}")
        check(all(self.stop_bytes), "stop: a stop string of no bytes would stop at once; leave it out")
        is_count = self.logprobs is None or 0 <= self.logprobs <= 257
        check(is_count, f"logprobs: from 0 to 257 (256 bytes and the end), got {self.logprobs}")

    @property
    def stop_bytes(self) -> list[bytes]:
        """The stop strings as bytes."""
        stops = [self.stop] if isinstance(self.stop, (str, bytes)) else self.stop
        return [to_bytes(stop) for stop in stops]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A prompt and what the model made of it."""

    prompt: bytes
    """What was given."""
    new_bytes: bytes
    """What the model wrote, without a stop string; UTF-8 unless `valid_utf8` is off."""
    stopped_by: Stopped
    """Why it is over: `eos`, `stop` or `length`; after `length`, a regex or a JSON schema may not be satisfied yet."""
    logprobs: tuple[ByteLogprob, ...] | None = None
    """For each new byte, how likely it was; only where it was asked for."""

    @property
    def data(self) -> bytes:
        """Prompt and continuation."""
        return self.prompt + self.new_bytes

    @property
    def text(self) -> str:
        """Prompt and continuation as text, U+FFFD for bytes that are none."""
        return self.data.decode("utf-8", errors="replace")

    @property
    def continuation(self) -> str:
        """The continuation alone as text, U+FFFD for bytes that are none."""
        return self.new_bytes.decode("utf-8", errors="replace")


def generate(lm: ByteLM, prompt: str | bytes = "", **options: Unpack[GenerationOptions]) -> Generation:
    """Continue a prompt.

    Args:
        lm: the model.
        prompt: any text or bytes; the empty one asks for a document from its start.
        options: the fields of `GenerationConfig`: `max_new_bytes` (300), `temperature` (0.7; 0 is greedy), `top_k`,
            `top_p`, `min_p`, `repetition_penalty`, `repetition_window`, `valid_utf8` (by default on if the prompt is
            UTF-8), `regex` or `json_schema` (what is written matches it), `seed`, `stop` (one stop string or several,
            as text or bytes) and `logprobs`.

    Raises:
        ConfigurationError: an option that cannot be.
    """
    return generate_batch(lm, [prompt], **options)[0]


def generate_batch(
    lm: ByteLM, prompts: Sequence[str | bytes], **options: Unpack[GenerationOptions]
) -> list[Generation]:
    """Continue several prompts at once, of any lengths.

    Args:
        lm: the model.
        prompts: any texts or bytes.
        options: as for `generate`; prompt number i is continued as it would be alone with seed + i.

    Raises:
        ConfigurationError: an option that cannot be.
    """
    config = GenerationConfig(**options)
    seeds = [None if config.seed is None else config.seed + number for number in range(len(prompts))]
    rows = [_Row(prompt, dataclasses.replace(config, seed=seed)) for prompt, seed in zip(prompts, seeds, strict=True)]
    for _ in _continue(lm, rows):
        pass
    return [row.generation() for row in rows]


def stream(
    lm: ByteLM, prompt: str | bytes = "", *, with_prompt: bool = False, **options: Unpack[GenerationOptions]
) -> Iterator[str]:
    """Continue a prompt piece by piece; no piece is empty, splits a character or shows a part of a stop string.

    Args:
        lm: the model.
        prompt: any text or bytes.
        with_prompt: begin with the prompt, so that the pieces are `Generation.text` and not its `continuation`.
        options: as for `generate`.

    Raises:
        ConfigurationError: an option that cannot be.
    """
    row = _Row(prompt, GenerationConfig(**options))
    return _pieces(lm, row, shown=row.prompt if with_prompt else b"")


def _pieces(lm: ByteLM, row: "_Row", *, shown: bytes) -> Iterator[str]:
    utf8 = Utf8Stream()
    if text := utf8.feed(shown):
        yield text
    num_shown = 0
    for _ in _continue(lm, [row]):
        if text := utf8.feed(bytes(row.new_bytes[num_shown:])):
            yield text
        num_shown = len(row.new_bytes)
    if text := utf8.finish():
        yield text


class _Row:
    """One prompt on its way."""

    def __init__(self, prompt: str | bytes, config: GenerationConfig) -> None:
        self.prompt = to_bytes(prompt)
        self.new_bytes = bytearray()  # those that are settled, so that they may be shown
        self.stopped_by: Stopped | None = None
        self._sampler = Sampler(config, prompt=self.prompt)
        self._watch = StopWatch(config.stop_bytes)
        self._num_left = config.max_new_bytes
        self._num_alternatives = config.logprobs
        self._logprobs: list[ByteLogprob] = []
        self._stop_if_long_enough()

    def choose(self, logits: Float[Tensor, " V"]) -> int:
        """Choose the next id and take note of it."""
        scores = logits.numpy()
        chosen = self._sampler.choose(scores, room=self._num_left)
        self._sampler.read(chosen)
        if chosen == EOS_ID:
            self._stop("eos")
            return chosen
        if self._num_alternatives is not None:
            self._logprobs.append(byte_logprob(scores, chosen, num_top=self._num_alternatives))
        self._num_left -= 1
        self.new_bytes += self._watch.feed(bytes([chosen - BYTE_OFFSET]))
        if self._watch.has_stopped:
            self._stop("stop")
        elif self._sampler.is_over:
            self._stop("eos")
        else:
            self._stop_if_long_enough()
        return chosen

    def generation(self) -> Generation:
        """Give the result, once the row has stopped."""
        assert self.stopped_by is not None
        new_bytes = bytes(self.new_bytes)
        logprobs = None if self._num_alternatives is None else tuple(self._logprobs[: len(new_bytes)])
        return Generation(prompt=self.prompt, new_bytes=new_bytes, stopped_by=self.stopped_by, logprobs=logprobs)

    def _stop_if_long_enough(self) -> None:
        if self._num_left == 0:
            self._stop("length")

    def _stop(self, reason: Stopped) -> None:
        self.stopped_by = reason
        self.new_bytes += self._watch.finish()


def _continue(lm: ByteLM, rows: Sequence[_Row]) -> Iterator[None]:
    """Add a byte to every row that has not stopped, again and again until all have; yield after each round."""
    running = [row for row in rows if row.stopped_by is None]
    if not running:
        return
    session = DecodingSession.after(lm, [encode(row.prompt, bos=True) for row in running])
    while True:
        chosen = [row.choose(logits) for row, logits in zip(running, session.logits.cpu(), strict=True)]
        yield
        going = [number for number, row in enumerate(running) if row.stopped_by is None]
        if not going:
            return
        if len(going) < len(running):
            session.select(torch.tensor(going, device=lm.device))
            running = [running[number] for number in going]
        session.step(torch.tensor([chosen[number] for number in going], device=lm.device))
