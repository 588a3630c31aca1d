"""`measure_noise`: what a model loses where its prompt, the continuation or both are perturbed.

Each document gives one item: its start, up to 256 characters or half of it, as the prompt, and the next 64 characters,
up to the end of a word, as the continuation. Two minimal pairs are made of it, in both of which the true continuation
should be likelier by the byte:

- `other`: the true continuation against that of another document;
- `swapped`: the true continuation against itself with two different words swapped (two characters, where there are no
  two words).

A model that cannot tell them is right in half of the pairs. Under noise both sides of a pair are perturbed alike, with
the same seed.
"""

import math
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blt.configuration import check
from blt.errors import DataError
from blt.evaluation.bootstrap import Interval, mean_interval, ratio, share_interval
from blt.evaluation.continuations import Pair, Scorer
from blt.evaluation.perturbations import PERTURBATIONS, perturb
from blt.progress import OnProgress

PLACES = ("prompt", "continuation", "both")
"""Where noise is put."""
PAIRS = ("other", "swapped")
"""The minimal pairs."""
CHANCE = 0.5
"""Accuracy of a model that cannot tell one side of a pair from the other."""
MAX_PROMPT = 256
"""Characters of a prompt, but for the rest of a word."""
MAX_CONTINUATION = 64
"""Characters of a continuation at most."""
MIN_CONTINUATION = 16
"""Characters of a continuation at least; shorter documents are left out."""


class Item(NamedTuple):
    """A document's prompt and continuation, and the wrong sides of its pairs."""

    number: int
    """Of the document."""
    prompt: bytes
    true: bytes
    other: bytes
    swapped: bytes


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What was measured with one perturbation at one place, or with none."""

    perturbation: str | None
    """A key of `PERTURBATIONS`; None for clean text, or for the average."""
    place: str | None
    """One of `PLACES`; None likewise."""
    bits_per_byte: Interval
    """Bits of the true continuations, divided by their bytes as they stand."""
    bits_per_clean_byte: Interval
    """The same bits, divided by the bytes of the clean continuations, since noise adds or removes some."""
    accuracy: dict[str, Interval]
    """Of each of `PAIRS`: share in which the true side is likelier by the byte; a tie is half right."""
    lost: dict[str, Interval]
    """Accuracy on clean text minus `accuracy`; drawn in pairs, document by document."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values: dict[str, Any] = {"perturbation": self.perturbation, "place": self.place}
        values |= {name: getattr(self, name).to_dict() for name in ("bits_per_byte", "bits_per_clean_byte")}
        for name in ("accuracy", "lost"):
            values[name] = {pair: interval.to_dict() for pair, interval in getattr(self, name).items()}
        return values


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What a model loses by noise."""

    clean: Condition
    """Without noise."""
    noised: list[Condition]
    """Every perturbation at every place."""
    average: Condition
    """Mean over `noised`, document by document."""
    num_documents: int
    """That gave an item."""
    num_left_out: int
    """Documents that are too short, or whose continuation is one character again and again."""
    num_bytes: int
    """Of the clean continuations."""
    seed: int
    """Of the noise, the pairs and the bootstrap."""
    seconds: float
    """Wall-clock time of the scoring."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        numbers = ("num_documents", "num_left_out", "num_bytes", "seed", "seconds")
        return {name: getattr(self, name) for name in numbers} | {
            "chance": CHANCE,
            "clean": self.clean.to_dict(),
            "noised": [condition.to_dict() for condition in self.noised],
            "average": self.average.to_dict(),
        }


class _Measured(NamedTuple):
    """One condition, document by document."""

    bits: NDArray[np.float64]
    num_bytes: NDArray[np.int64]
    num_clean_bytes: NDArray[np.int64]
    is_right: dict[str, NDArray[np.float64]]


def measure_noise(
    scorer: Scorer,
    documents: Iterable[bytes],
    *,
    seed: int = 0,
    bootstrap: int = 1000,
    progress: OnProgress | None = None,
) -> Noise:
    """Measure a model on clean and on perturbed text.

    Args:
        scorer: the model; `ByteScorer` for one of ours.
        documents: raw bytes of each.
        seed: of the noise, the pairs and the bootstrap.
        bootstrap: how many times to resample for the intervals; 0 for none.
        progress: told the conditions measured so far, and their total.

    Raises:
        ConfigurationError: a negative number of resamples.
        DataError: fewer than two documents that give an item.
    """
    check(bootstrap >= 0, f"bootstrap: expected 0 or more resamples, got {bootstrap}")
    documents = list(documents)
    items = items_of(documents, seed=seed)
    conditions = [(name, place) for name in PERTURBATIONS for place in PLACES]
    start = time.perf_counter()
    clean = _measure(scorer, items, None, None, seed=seed)
    noised = []
    for done, (name, place) in enumerate(conditions, start=1):
        if progress is not None:
            progress(done, len(conditions) + 1)
        noised.append(_measure(scorer, items, name, place, seed=seed))
    if progress is not None:
        progress(len(conditions) + 1, len(conditions) + 1)
    seconds = time.perf_counter() - start
    summary = _Summary(clean, seed=seed, bootstrap=bootstrap)
    return Noise(
        clean=summary.of(clean, None, None),
        noised=[summary.of(one, name, place) for one, (name, place) in zip(noised, conditions, strict=True)],
        average=summary.of(_mean(noised), None, None),
        num_documents=len(items),
        num_left_out=len(documents) - len(items),
        num_bytes=int(clean.num_bytes.sum()),
        seed=seed,
        seconds=seconds,
    )


def items_of(documents: Sequence[bytes], *, seed: int) -> list[Item]:
    """Make an item of every document that is long enough.

    Raises:
        DataError: fewer than two are.
    """
    found = []
    for number, document in enumerate(documents):
        prompt, true = _divided(document.decode("utf-8", errors="surrogateescape"))
        swapped = _swapped(true, np.random.default_rng((seed, number)))
        if len(true) >= MIN_CONTINUATION and swapped is not None:
            found.append((number, prompt, true, swapped))
    if len(found) < 2:
        raise DataError(
            f"{len(found)} of {len(documents)} documents can be divided into a prompt and a continuation of "
            f"{MIN_CONTINUATION} characters, and pairs need 2; give longer documents"
        )
    order = np.random.default_rng(seed).permutation(len(found)).tolist()
    others = {number: found[other][2] for number, other in zip(order, [*order[1:], order[0]], strict=True)}
    return [
        Item(number, _bytes(prompt), _bytes(true), _bytes(others[place]), _bytes(swapped))
        for place, (number, prompt, true, swapped) in enumerate(found)
    ]


def _divided(text: str) -> tuple[str, str]:
    """Divide a text before white space, if there is any in reach: prompt and continuation."""
    start = min(MAX_PROMPT, len(text) // 2)
    space = re.compile(r"\s").search(text, start, start + MAX_CONTINUATION)
    cut = start if space is None else space.start()
    continuation, rest = text[cut : cut + MAX_CONTINUATION], text[cut + MAX_CONTINUATION :]
    if rest and not rest[0].isspace():  # a word was cut
        whole = re.sub(r"\s+\S*$", "", continuation)
        continuation = whole if len(whole) >= MIN_CONTINUATION else continuation
    return text[:cut], continuation


def _swapped(text: str, generator: np.random.Generator) -> str | None:
    """Swap two different words, or two different characters where there are no two words; None without those."""
    for parts in (re.split(r"(\s+)", text), list(text)):
        places = [number for number, part in enumerate(parts) if part.strip()]
        pairs = [(a, b) for a in places for b in places if a < b and parts[a] != parts[b]]
        if pairs:
            first, second = pairs[int(generator.integers(len(pairs)))]
            parts[first], parts[second] = parts[second], parts[first]
            return "".join(parts)
    return None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")


def _measure(scorer: Scorer, items: Sequence[Item], name: str | None, place: str | None, *, seed: int) -> _Measured:
    """Score all sides of all items under one condition."""
    sides = ("true", *PAIRS)
    pairs: list[Pair] = []
    for item in items:
        prompt = _noised(item.prompt, name, place, "prompt", (seed, item.number, 0))
        for side in sides:
            text = getattr(item, side)
            pairs.append((prompt, _noised(text, name, place, "continuation", (seed, item.number, 1))))
    logprobs = np.array(scorer.logprobs(pairs)).reshape(-1, len(sides))
    lengths = np.array([len(continuation) for _, continuation in pairs]).reshape(-1, len(sides))
    by_byte = logprobs / lengths
    is_right = {
        pair: np.where(by_byte[:, 0] == by_byte[:, number], CHANCE, by_byte[:, 0] > by_byte[:, number])
        for number, pair in enumerate(PAIRS, start=1)
    }
    clean = np.array([len(item.true) for item in items])
    bits = -logprobs[:, 0] / math.log(2)
    return _Measured(bits=bits, num_bytes=lengths[:, 0], num_clean_bytes=clean, is_right=is_right)


def _noised(text: bytes, name: str | None, place: str | None, part: str, seed: tuple[int, ...]) -> bytes:
    return text if name is None or place not in (part, "both") else perturb(text, name, seed=seed)


def _mean(measured: Sequence[_Measured]) -> _Measured:
    """Average conditions document by document; bytes are added up, and so are bits, for the ratio of their sums."""
    return _Measured(
        bits=np.sum([one.bits for one in measured], axis=0),
        num_bytes=np.sum([one.num_bytes for one in measured], axis=0),
        num_clean_bytes=np.sum([one.num_clean_bytes for one in measured], axis=0),
        is_right={pair: np.mean([one.is_right[pair] for one in measured], axis=0) for pair in PAIRS},
    )


class _Summary:
    """Turns what was measured document by document into figures with intervals."""

    def __init__(self, clean: _Measured, *, seed: int, bootstrap: int) -> None:
        self._clean, self._draws = clean, {"seed": seed, "resamples": bootstrap}

    def of(self, measured: _Measured, name: str | None, place: str | None) -> Condition:
        """Return the figures of one condition."""
        right, clean = measured.is_right, self._clean.is_right
        return Condition(
            perturbation=name,
            place=place,
            bits_per_byte=ratio(measured.bits, measured.num_bytes, **self._draws),
            bits_per_clean_byte=ratio(measured.bits, measured.num_clean_bytes, **self._draws),
            accuracy={pair: share_interval(right[pair], **self._draws) for pair in PAIRS},
            lost={pair: mean_interval(clean[pair] - right[pair], **self._draws) for pair in PAIRS},
        )
