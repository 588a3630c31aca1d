"""Choosing the next byte."""

from collections import Counter

import numpy as np
import pytest

from blt.codec import BOE_ID, BOS_ID, BPE_ID, BYTE_OFFSET, EOS_ID, VOCABULARY_SIZE
from blt.errors import ConfigurationError
from blt.generation import Sampler, SamplingConfig


def logits_of(**chances: float) -> np.ndarray:
    """Give logits under which a few letters have the given chances, and nothing else has any to speak of."""
    logits = np.full(VOCABULARY_SIZE, -1e9, dtype=np.float32)
    for letter, chance in chances.items():
        logits[ord(letter) + BYTE_OFFSET] = np.log(chance)
    return logits


FOUR = logits_of(a=0.5, b=0.25, c=0.15, d=0.1)


def chances(config: SamplingConfig, logits: np.ndarray = FOUR) -> dict[str, float]:
    found = Sampler(config).probabilities(logits)
    return {chr(index - BYTE_OFFSET): float(found[index]) for index in np.flatnonzero(found > 1e-12)}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 1.0}, {"a": 0.5, "b": 0.25, "c": 0.15, "d": 0.1}),
        ({"temperature": 0.5}, {"a": 0.25 / 0.345, "b": 0.0625 / 0.345, "c": 0.0225 / 0.345, "d": 0.01 / 0.345}),
        ({"temperature": 1.0, "top_k": 2}, {"a": 2 / 3, "b": 1 / 3}),
        ({"temperature": 1.0, "top_k": 1}, {"a": 1.0}),
        ({"temperature": 1.0, "top_k": 1000}, {"a": 0.5, "b": 0.25, "c": 0.15, "d": 0.1}),
        ({"temperature": 1.0, "top_p": 0.01}, {"a": 1.0}),
        ({"temperature": 1.0, "top_p": 0.6}, {"a": 2 / 3, "b": 1 / 3}),
        ({"temperature": 1.0, "top_p": 0.8}, {"a": 0.5 / 0.9, "b": 0.25 / 0.9, "c": 0.15 / 0.9}),
        ({"temperature": 1.0, "top_p": 1.0}, {"a": 0.5, "b": 0.25, "c": 0.15, "d": 0.1}),
        ({"temperature": 1.0, "top_k": 3, "top_p": 0.6}, {"a": 2 / 3, "b": 1 / 3}),  # 0.5/0.9 alone is below 0.6
        ({"temperature": 1e-300}, {"a": 1.0}),
    ],
)
def test_temperature_top_k_and_top_p_leave_the_chances_that_a_direct_computation_gives(options, expected):
    assert chances(SamplingConfig(**options)) == pytest.approx(expected, rel=1e-5)


def test_top_k_keeps_exactly_k_of_equally_likely_bytes():
    alike = logits_of(a=0.25, b=0.25, c=0.25, d=0.25)
    assert chances(SamplingConfig(temperature=1.0, top_k=2), alike) == pytest.approx({"a": 0.5, "b": 0.5})


def test_bytes_are_drawn_as_often_as_their_chances_say():
    sampler = Sampler(SamplingConfig(temperature=1.0, seed=0))
    drawn = Counter(chr(sampler.choose(FOUR) - BYTE_OFFSET) for _ in range(4000))
    shares = {letter: count / 4000 for letter, count in drawn.items()}
    assert shares == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.15, "d": 0.1}, abs=0.03)


def test_no_special_id_but_eos_is_ever_chosen():
    logits = np.full(VOCABULARY_SIZE, -1e9, dtype=np.float32)
    logits[[BOE_ID, BOS_ID, BPE_ID]] = 50.0
    logits[EOS_ID] = 0.0
    for temperature in (0.0, 1.0, 100.0):
        assert Sampler(SamplingConfig(temperature=temperature, seed=0)).choose(logits) == EOS_ID


def test_greedy_is_the_likeliest_byte_and_draws_nothing():
    assert {Sampler(SamplingConfig(temperature=0)).choose(FOUR) for _ in range(20)} == {ord("a") + BYTE_OFFSET}


def test_choosing_leaves_the_logits_as_they_are():
    before = FOUR.copy()
    Sampler(SamplingConfig(seed=1, top_k=2, top_p=0.5)).choose(FOUR)
    assert np.array_equal(FOUR, before)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(options, match):
    with pytest.raises(ConfigurationError, match=match):
        SamplingConfig(**options)
