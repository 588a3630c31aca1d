"""What is asked for, and what comes of it: a prompt on its way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt

from blt.codec import BYTE_OFFSET, EOS_ID, to_bytes
from blt.configuration import check, check_known
from blt.decoder import PlainSampling
from blt.errors import BLTError
from blt.generation.logprobs import ByteLogprob, byte_logprob
from blt.generation.sampling import Sampler, SamplingConfig, as_plain_number
from blt.generation.stopping import StopWatch

StopReason = Literal["eos", "stop", "length", "error"]
"""Why a text is over: the model ended it, a stop string came, it is as long as was asked for, or it cannot go on."""


class GenerationOptions(TypedDict, total=False):
    """The fields of `GenerationConfig`, as keyword arguments; all may be left out."""

    max_new_bytes: int
    temperature: float | int
    top_k: int | None
    top_p: float | int | None
    min_p: float | int | None
    repetition_penalty: float | int
    repetition_window: int | None
    presence_penalty: float | int
    frequency_penalty: float | int
    logit_bias: Mapping[int, float | int] | None
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
    """Return each new byte's log-probability, and this many likeliest alternatives (0 to 257); None means neither."""

    def __post_init__(self) -> None:
        super().__post_init__()
        as_plain_number(self, "max_new_bytes", int)
        as_plain_number(self, "logprobs", int, may_lack=True)
        stops = (self.stop,) if isinstance(self.stop, str | bytes) else self.stop
        are_texts = isinstance(stops, Sequence) and all(isinstance(stop, str | bytes) for stop in stops)
        check(are_texts, f"stop: expected a text, bytes, or a list of them, got {self.stop!r}")
        check(self.max_new_bytes >= 0, f"max_new_bytes: at least 0, got {self.max_new_bytes}")
        check(all(self.stop_bytes), "stop: a stop string of no bytes would stop at once; leave it out")
        is_count = self.logprobs is None or 0 <= self.logprobs <= 257
        check(is_count, f"logprobs: from 0 to 257 (256 bytes and the end), got {self.logprobs}")

    @classmethod
    def of(cls, options: GenerationOptions) -> "GenerationConfig":
        """Return the configuration of keyword arguments.

        Raises:
            ConfigurationError: an option that is not known, or cannot be.
        """
        check_known(options, [field.name for field in fields(cls)], what="option")
        return cls(**options)

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
    stopped_by: StopReason
    """Why it is over: `eos`, `stop`, `length` or `error`; after `length`, a regex or a JSON schema may not be satisfied
    yet."""
    logprobs: tuple[ByteLogprob, ...] | None = None
    """For each new byte, how likely it was; only where it was asked for."""
    stop_string: bytes | None = None
    """The stop string that ended it, after `stop`."""
    error: str | None = None
    """What went wrong, after `error`."""

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


class Request:
    """A prompt that is being continued.

    Args:
        prompt: any text or bytes.
        config: how it is continued.
    """

    def __init__(self, prompt: str | bytes, config: GenerationConfig) -> None:
        self.prompt = to_bytes(prompt)
        self.new_bytes = bytearray()
        """What has been written and is settled, so that it may be shown: no beginning of a stop string."""
        self.stopped_by: StopReason | None = None
        """Why it is over; None while it is not."""
        self.error: Exception | None = None
        """What went wrong, where it is over by that."""
        self.end_logprob: ByteLogprob | None = None
        """How likely the end was, where the model chose it and log-probabilities were asked for."""
        self._sampler = Sampler(config, prompt=self.prompt)
        self._watch = StopWatch(config.stop_bytes)
        self._max_new_bytes = self._num_left = config.max_new_bytes
        self._num_alternatives = config.logprobs
        self._logprobs: list[ByteLogprob] = []
        if self._num_left == 0:
            self._stop("length")

    @property
    def num_left(self) -> int:
        """How many bytes may still come."""
        return self._num_left

    @property
    def num_written(self) -> int:
        """How many bytes the model has written, those of a stop string included."""
        return self._max_new_bytes - self._num_left

    @property
    def stop_string(self) -> bytes | None:
        """The stop string that ended it, if one did."""
        return self._watch.matched

    @property
    def logprobs(self) -> Sequence[ByteLogprob]:
        """For each byte that was written so far, those of a stop string included; none where it was not asked for."""
        return self._logprobs

    def choose(self, logits: npt.NDArray[np.float32]) -> int:
        """Choose the next id from its logits, and take note of it; EOS where nothing more is written."""
        if self._sampler.lacks_room(self._num_left):
            self._stop("length")
            return EOS_ID
        chosen = self._sampler.choose(logits, room=self._num_left)
        self._sampler.read(chosen)
        told = None
        if self._num_alternatives is not None:
            told = byte_logprob(logits, chosen, num_top=self._num_alternatives)
        if chosen == EOS_ID:
            self.end_logprob = told
            self._stop("eos")
            return chosen
        if told is not None:
            self._logprobs.append(told)
        self._num_left -= 1
        self.new_bytes += self._watch.feed(bytes([chosen - BYTE_OFFSET]))
        if self._watch.has_stopped:
            self._stop("stop")
        elif self._sampler.is_over:
            self._stop("eos")
        elif self._num_left == 0:
            self._stop("length")
        return chosen

    def plain_sampling(self) -> PlainSampling | None:
        """Return what the native decoder needs in order to choose as this request would; None where it cannot."""
        if self._num_alternatives is not None:
            return None
        return self._sampler.plain(room=self._num_left)

    def accept(self, data: bytes, *, stopped_by: Literal["eos", "length"] | None) -> None:
        """Record the bytes that the native decoder chose, and why it stopped; a stop string ends them."""
        for byte in data:
            self._num_left -= 1
            self.new_bytes += self._watch.feed(bytes([byte]))
            if self._watch.has_stopped:
                self._stop("stop")
                return
        if stopped_by is not None:
            self._stop(stopped_by)

    def fail(self, error: Exception) -> None:
        """End the request by an error; what has been written so far stays."""
        self.error = error
        self._stop("error")

    def fork_sampler(self) -> "DraftSampler":
        """Return what chooses as this request would, without taking note here."""
        return DraftSampler(self._sampler.fork(), num_left=self._num_left)

    def generation(self) -> Generation:
        """Return the result, once the request is over."""
        assert self.stopped_by is not None
        new_bytes = bytes(self.new_bytes)
        logprobs = None if self._num_alternatives is None else tuple(self._logprobs[: len(new_bytes)])
        error = None if self.error is None else str(self.error) or type(self.error).__name__
        return Generation(
            prompt=self.prompt,
            new_bytes=new_bytes,
            stopped_by=self.stopped_by,
            logprobs=logprobs,
            stop_string=self.stop_string,
            error=error,
        )

    def _stop(self, reason: StopReason) -> None:
        self.stopped_by = reason
        self.new_bytes += self._watch.finish()


class DraftSampler:
    """Chooses as a request would if the logits of a cheaper model were the model's own.

    It has the request's random numbers to come. So a draft is right exactly when both models' logits lead to the same
    choice, and what is written never depends on whether it was drafted.

    Args:
        sampler: a fork of the request's.
        num_left: how many bytes may still come.
    """

    def __init__(self, sampler: Sampler, *, num_left: int) -> None:
        self._sampler, self._num_left = sampler, num_left

    def choose(self, logits: npt.NDArray[np.float32]) -> int | None:
        """Draft the next id; None where no further byte would be read, or where the request would fail."""
        try:
            if self._num_left < 2 or self._sampler.is_over or self._sampler.lacks_room(self._num_left):
                return None
            chosen = self._sampler.choose(logits, room=self._num_left)
            if chosen == EOS_ID:
                return None
            self._sampler.read(chosen)
        except BLTError:  # the request meets it itself, if it comes as far
            return None
        self._num_left -= 1
        return chosen
