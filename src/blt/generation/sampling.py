"""Choosing the next byte."""

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from blt.codec import BYTE_OFFSET, EOS_ID, VOCABULARY_SIZE
from blt.configuration import check
from blt.decoder import PlainSampling
from blt.errors import ConfigurationError, ModelFolderError
from blt.generation.constraint import constraint_of
from blt.generation.random_numbers import RandomNumbers
from blt.generation.repetition import RepetitionPenalty, WrittenPenalty
from blt.generation.utf8 import LONGEST, Utf8State, is_utf8

_LOWEST_TEMPERATURE = 1e-260
"""Of float32 logits, whatever they are, none divided by it overflows float64; it is greedy all the same."""

MAX_PENALTY = 1e3
"""The strongest repetition penalty, and its inverse the weakest: a byte is then certain, or out of the question."""

_NO_PENALTIES = np.zeros(VOCABULARY_SIZE)
_NO_PENALTIES[[special for special in range(BYTE_OFFSET) if special != EOS_ID]] = -np.inf
"""Every byte and EOS may come; no other special id ever does."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next byte is chosen from its probabilities: penalties, bias, temperature, top k, top p and min p."""

    temperature: float | int = 0.7
    """Below 1: safer; above 1: wilder; 0: always the likeliest byte."""
    top_k: int | None = None
    """Choose among the k likeliest bytes only; None means among all."""
    top_p: float | int | None = None
    """Choose among the fewest likeliest bytes that together reach this probability; None means among all."""
    min_p: float | int | None = None
    """Choose among bytes at least this fraction as likely as the likeliest; None means among all."""
    repetition_penalty: float | int = 1.0
    """Above 1: bytes that occurred in prompt or text become less likely, as in CTRL and transformers; blunt on bytes,
    since soon every letter has occurred: stay near 1, or set a window."""
    repetition_window: int | None = None
    """Number of latest bytes that the penalty sees; None means all."""
    presence_penalty: float | int = 0.0
    """From -2 to 2: what the logit of each byte that has been written loses, as in OpenAI's API; the prompt does not
    count."""
    frequency_penalty: float | int = 0.0
    """From -2 to 2: the same, times how often the byte has been written."""
    logit_bias: Mapping[int, float | int] | None = None
    """What is added to the logits of some ids, from -100 to 100: byte b has the id b + 4, the end 2."""
    valid_utf8: bool | None = None
    """Whether only bytes may come that keep the text UTF-8; None means if the prompt is UTF-8."""
    regex: str | None = None
    """Write what this regular expression matches as a whole (no look-around, no back-references)."""
    json_schema: str | dict[str, Any] | None = None
    """Write JSON that this schema admits; {} admits any JSON."""
    seed: int | None = None
    """Equal seeds give equal texts; None means another text every time."""

    def __post_init__(self) -> None:
        self._check_types()
        is_temperature = math.isfinite(self.temperature) and self.temperature >= 0
        check(is_temperature, f"temperature: expected 0 (greedy) or a number above it, got {self.temperature}")
        check(self.top_k is None or self.top_k >= 1, f"top_k: at least 1, got {self.top_k}; leave it out for all bytes")
        check(self.top_p is None or 0 < self.top_p <= 1, f"top_p: above 0 and at most 1, got {self.top_p}")
        check(self.min_p is None or 0 <= self.min_p <= 1, f"min_p: from 0 to 1, got {self.min_p}")
        is_penalty = 1 / MAX_PENALTY <= self.repetition_penalty <= MAX_PENALTY
        least, most = f"{1 / MAX_PENALTY:g}", f"{MAX_PENALTY:g}"
        check(is_penalty, f"repetition_penalty: from {least} to {most} (1 is none), got {self.repetition_penalty}")
        is_window = self.repetition_window is None or self.repetition_window >= 1
        check(is_window, f"repetition_window: at least 1, got {self.repetition_window}; leave it out for all bytes")
        check(self.seed is None or self.seed >= 0, f"seed: at least 0, got {self.seed}")
        for name in ("presence_penalty", "frequency_penalty"):
            check(-2 <= getattr(self, name) <= 2, f"{name}: from -2 to 2 (0 is none), got {getattr(self, name)}")
        self._check_bias()
        constraint_of(regex=self.regex, json_schema=self.json_schema)

    def _check_types(self) -> None:
        """Refuse values of another type than a field's, and turn NumPy's numbers into Python's."""
        for name in ("temperature", "repetition_penalty", "presence_penalty", "frequency_penalty"):
            as_plain_number(self, name, float)
        for name in ("top_p", "min_p"):
            as_plain_number(self, name, float, may_lack=True)
        for name in ("top_k", "repetition_window", "seed"):
            as_plain_number(self, name, int, may_lack=True)
        is_choice = self.valid_utf8 is None or isinstance(self.valid_utf8, bool)
        check(is_choice, f"valid_utf8: expected true, false or nothing, got {self.valid_utf8!r}")
        check(self.regex is None or isinstance(self.regex, str), f"regex: expected a text, got {self.regex!r}")

    def _check_bias(self) -> None:
        """Refuse a bias of what never comes, and one that is no number or too large."""
        given: Any = self.logit_bias  # callers are not held to the annotation
        check(given is None or isinstance(given, Mapping), f"logit_bias: expected ids and numbers, got {given!r}")
        for key, bias in (given or {}).items():
            is_id = isinstance(key, numbers.Integral) and not isinstance(key, bool)
            is_written = is_id and (key == EOS_ID or BYTE_OFFSET <= key < VOCABULARY_SIZE)
            check(is_written, f"logit_bias: {key!r} is no id of a byte (b + 4) nor of the end (2)")
            is_bias = isinstance(bias, int | float) and not isinstance(bias, bool) and -100 <= bias <= 100
            check(is_bias, f"logit_bias: of id {key}: from -100 to 100, got {bias!r}")


def as_plain_number(config: object, name: str, kind: type[int] | type[float], *, may_lack: bool = False) -> None:
    """Convert a numeric field of a frozen dataclass to Python's own type, from NumPy's for instance.

    Raises:
        ConfigurationError: it is none of that kind; a truth value is no number.
    """
    value = getattr(config, name)
    if value is None and may_lack:
        return
    known = numbers.Integral if kind is int else numbers.Real
    expected = "a whole number" if kind is int else "a number"
    check(isinstance(value, known) and not isinstance(value, bool), f"{name}: expected {expected}, got {value!r}")
    try:
        plain = kind(value)
    except OverflowError:
        raise ConfigurationError(f"{name}: larger than any floating-point number") from None
    if type(value) not in (int, float):
        object.__setattr__(config, name, plain)


class Sampler:
    """Chooses the ids of one row, with random numbers of its own.

    `choose` and `probabilities` look at the logits; only `read` takes note of an id.

    Args:
        config: how.
        prompt: what has been read; the repetition penalty counts it, and UTF-8 goes on from it. A regex or a JSON
            schema holds for what follows it, or follows the character that is unfinished at its end.
    """

    def __init__(self, config: SamplingConfig, *, prompt: bytes = b"") -> None:
        self.config = config
        self._random = RandomNumbers(config.seed)
        keeps_utf8 = is_utf8(prompt) if config.valid_utf8 is None else config.valid_utf8
        self._utf8 = Utf8State(prompt) if keeps_utf8 else None
        self._constraint = constraint_of(regex=config.regex, json_schema=config.json_schema)
        self._completes_prompt = self._utf8 is not None and not self._utf8.is_between_characters
        self._repetition = None
        if config.repetition_penalty != 1:
            window = config.repetition_window
            self._repetition = RepetitionPenalty(config.repetition_penalty, window=window, prompt=prompt)
        self._written = None
        if config.presence_penalty or config.frequency_penalty:
            self._written = WrittenPenalty(presence=config.presence_penalty, frequency=config.frequency_penalty)
        self._bias = _bias(config.logit_bias)

    @property
    def is_over(self) -> bool:
        """Whether nothing but EOS can come, since a regex or a JSON schema admits no further byte."""
        return self._constraint is not None and not self._completes_prompt and self._constraint.is_over

    def lacks_room(self, room: int) -> bool:
        """Whether every byte that a regex or a JSON schema admits begins a character that does not fit into `room`.

        Then the text has to end here, so that no half of a character stands at its end.
        """
        if room >= LONGEST or self._constraint is None or self._utf8 is None or self._completes_prompt:
            return False
        admitted = self._constraint.penalties()
        fits = self._utf8.penalties(room=room) + admitted
        return bool(fits.max() != 0 and (self._utf8.penalties() + admitted).max() == 0)

    def probabilities(self, logits: npt.NDArray[np.float32], *, room: int | None = None) -> npt.NDArray[np.float64]:
        """Return the distribution that the next id is drawn from, given all that was read.

        Args:
            logits: of all 260 ids.
            room: bytes left; where UTF-8 is kept, no character begins that does not fit. None means any number.

        Returns:
            260 probabilities; at temperature 0 the likeliest id has all of it (of equals, the smallest id).
        """
        scores = self._scores(logits, room)
        if self.config.temperature == 0:
            chosen = np.zeros(VOCABULARY_SIZE)
            chosen[scores.argmax()] = 1.0
            return chosen
        weights = self._weights(scores)
        weights /= weights.sum()
        return weights

    def choose(self, logits: npt.NDArray[np.float32], *, room: int | None = None) -> int:
        """Draw the next id, a byte's or EOS, from `probabilities`, of which the arguments are; does not take note."""
        scores = self._scores(logits, room)
        if self.config.temperature == 0:
            chosen = int(scores.argmax())
            _finite(float(scores[chosen]))
            return chosen
        return self.draw(self._weights(scores))

    def draw(self, probabilities: npt.NDArray[np.float64]) -> int:
        """Draw an id with chances in proportion to `probabilities`, which need not sum to 1."""
        cumulative = probabilities.cumsum()
        total = float(cumulative[-1])
        drawn = int(cumulative.searchsorted(self._random.draw() * total, side="right"))
        if drawn == len(cumulative):  # rounded up to the total
            drawn = int(cumulative.searchsorted(total, side="left"))
        return drawn

    def read(self, byte_id: int) -> None:
        """Update the state with an id that was chosen."""
        if byte_id < BYTE_OFFSET:
            return
        byte = byte_id - BYTE_OFFSET
        if self._constraint is not None and not self._completes_prompt:
            self._constraint.read(byte_id)
        if self._utf8 is not None:
            self._utf8.read(byte)
            self._completes_prompt = self._completes_prompt and not self._utf8.is_between_characters
        if self._repetition is not None:
            self._repetition.read(byte)
        if self._written is not None:
            self._written.read(byte)

    def plain(self, *, room: int) -> PlainSampling | None:
        """Return what the native decoder needs in order to choose in the same way; None where it cannot.

        Args:
            room: bytes that may still be written.
        """
        if any(one is not None for one in (self._constraint, self._repetition, self._written, self._bias)):
            return None
        config = self.config
        return PlainSampling(
            temperature=float(config.temperature),
            top_k=None if config.top_k is None else min(config.top_k, VOCABULARY_SIZE),
            top_p=None if config.top_p is None else float(config.top_p),
            min_p=None if config.min_p is None else float(config.min_p),
            random_state=self._random.state,
            room=room,
            utf8_state=None if self._utf8 is None else self._utf8.state,
        )

    def fork(self) -> "Sampler":
        """Return an independent copy: same random numbers to come, and what it reads is its own."""
        copy = object.__new__(type(self))
        copy.config = self.config
        copy._random = self._random.fork()
        copy._completes_prompt = self._completes_prompt
        copy._constraint = None if self._constraint is None else self._constraint.fork()
        copy._utf8 = None if self._utf8 is None else self._utf8.fork()
        copy._repetition = None if self._repetition is None else self._repetition.fork()
        copy._written = None if self._written is None else self._written.fork()
        copy._bias = self._bias
        return copy

    def _scores(self, logits: npt.NDArray[np.float32], room: int | None) -> npt.NDArray[np.float64]:
        """Return the logits in float64, after penalties and bias, −∞ for what may not come."""
        allowed = self._penalties(room)
        if self._repetition is None and self._written is None and self._bias is None:
            return logits + allowed
        scores = logits.astype(np.float64)
        if self._repetition is not None:
            scores = self._repetition.apply(scores)
        if self._written is not None:
            scores = self._written.apply(scores)
        return scores + allowed if self._bias is None else scores + self._bias + allowed

    def _penalties(self, room: int | None) -> npt.NDArray[np.float64]:
        """Return 0 for ids that may come, −∞ for those that may not."""
        allowed = _NO_PENALTIES if self._utf8 is None else self._utf8.penalties(room=room)
        if self._constraint is None or self._completes_prompt:
            return allowed
        admitted = self._constraint.penalties()
        both = allowed + admitted
        if both.max() == 0:
            return both
        return admitted  # whatever fits is not admitted: the constraint goes before the room; it keeps UTF-8 itself

    def _weights(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return numbers in proportion to the chances, at a temperature above 0; the largest is 1."""
        config = self.config
        scores -= _finite(float(scores[scores.argmax()]))  # faster than max()
        scores /= max(config.temperature, _LOWEST_TEMPERATURE)
        weights = np.exp(scores, out=scores)
        if config.top_k is not None or config.top_p is not None:
            _keep_likeliest(weights, top_k=config.top_k, top_p=config.top_p)
        if config.min_p is not None:
            weights[weights < config.min_p] = 0
        return weights


def _bias(given: Mapping[int, float | int] | None) -> npt.NDArray[np.float64] | None:
    """Return what is added to the logits of all 260 ids; None for nothing."""
    if not given:
        return None
    added = np.zeros(VOCABULARY_SIZE)
    for key, bias in given.items():
        added[key] = bias
    added.setflags(write=False)
    return added


def broken_logits(likeliest: float) -> ModelFolderError:
    """Return the error of logits that nothing can be chosen from."""
    return ModelFolderError(f"the likeliest byte has the logit {likeliest}: weights are broken, or need float32")


def _finite(likeliest: float) -> float:
    if not math.isfinite(likeliest):
        raise broken_logits(likeliest)
    return likeliest


def _keep_likeliest(weights: npt.NDArray[np.float64], *, top_k: int | None, top_p: float | int | None) -> None:
    """Set all weights but those of the likeliest ids to 0; of equally likely ids, the smaller comes first."""
    order = np.argsort(-weights, kind="stable")
    if top_k is not None:
        weights[order[top_k:]] = 0
    if top_p is not None:
        reached = weights[order].cumsum()  # once each id is in; the one that reaches top_p is the last to stay
        weights[order[1:][reached[:-1] >= top_p * reached[-1]]] = 0
