"""Choosing the next byte."""

from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.codec import BOE_ID, BOS_ID, BPE_ID, BYTE_OFFSET, EOS_ID, VOCABULARY_SIZE
from blt.errors import ConfigurationError, ModelFolderError
from blt.generation import GenerationConfig, Sampler, SamplingConfig
from blt.generation.random_numbers import RandomNumbers


def logits_of(**chances: float) -> np.ndarray:
    """Return logits under which a few letters have the given chances, and nothing else has any to speak of."""
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
        ({"temperature": 1.0, "min_p": 0.29}, {"a": 0.5 / 0.9, "b": 0.25 / 0.9, "c": 0.15 / 0.9}),
        ({"temperature": 1.0, "min_p": 0.0}, {"a": 0.5, "b": 0.25, "c": 0.15, "d": 0.1}),
        ({"temperature": 1.0, "min_p": 1.0}, {"a": 1.0}),
        ({"temperature": 1e-300}, {"a": 1.0}),
        ({"temperature": 0}, {"a": 1.0}),
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


def test_of_equally_likely_bytes_greedy_takes_the_smallest():
    alike = logits_of(a=0.3, b=0.4, c=0.4)
    assert Sampler(SamplingConfig(temperature=0)).choose(alike) == ord("b") + BYTE_OFFSET
    assert chances(SamplingConfig(temperature=0), alike) == {"b": 1.0}


def transformers_chances(logits: np.ndarray, prompt: bytes, config: SamplingConfig) -> np.ndarray:
    """The same by the classes of transformers, in its order."""
    processors = transformers.LogitsProcessorList(
        [transformers.RepetitionPenaltyLogitsProcessor(float(config.repetition_penalty))]
    )
    if config.temperature != 1:
        processors.append(transformers.TemperatureLogitsWarper(float(config.temperature)))
    if config.top_k is not None:
        processors.append(transformers.TopKLogitsWarper(config.top_k))
    if config.top_p is not None:
        processors.append(transformers.TopPLogitsWarper(float(config.top_p)))
    if config.min_p is not None:
        processors.append(transformers.MinPLogitsWarper(float(config.min_p)))
    ids = torch.tensor([[byte + BYTE_OFFSET for byte in prompt]])
    return processors(ids, torch.from_numpy(logits)[None].double()).softmax(-1)[0].numpy()


@settings(deadline=None)
@given(
    st.builds(
        SamplingConfig,
        temperature=st.sampled_from([0.3, 0.7, 1, 1.5]),
        top_k=st.sampled_from([None, 1, 5, 40]),
        top_p=st.sampled_from([None, 0.2, 0.77, 0.95]),
        min_p=st.sampled_from([None, 0.01, 0.2]),
        repetition_penalty=st.sampled_from([1, 1.3, 0.6]),
        valid_utf8=st.just(False),
    ),
    st.binary(min_size=1, max_size=20),
    st.integers(0, 2**20),
)
def test_chances_are_those_of_transformers(config, prompt, seed):
    logits = (3 * np.random.default_rng(seed).standard_normal(VOCABULARY_SIZE)).astype(np.float32)
    logits[[BOE_ID, BOS_ID, BPE_ID]] = -np.inf
    found = Sampler(config, prompt=prompt).probabilities(logits)
    assert found == pytest.approx(transformers_chances(logits, prompt, config), abs=1e-9)


def test_the_repetition_penalty_divides_what_is_positive_and_multiplies_what_is_negative():
    logits = np.full(VOCABULARY_SIZE, -1e9, np.float32)
    logits[[ord(letter) + BYTE_OFFSET for letter in "abcd"]] = [2.0, -1.0, 1.0, -2.0]
    sampler = Sampler(SamplingConfig(temperature=1, repetition_penalty=2), prompt=b"ab")
    found = sampler.probabilities(logits)[[ord(letter) + BYTE_OFFSET for letter in "abcd"]]
    assert np.log(found / found[2]) + 1 == pytest.approx([1.0, -2.0, 1.0, -2.0])
    sampler.read(ord("c") + BYTE_OFFSET)
    found = sampler.probabilities(logits)[[ord(letter) + BYTE_OFFSET for letter in "abcd"]]
    assert np.log(found / found[2]) + 0.5 == pytest.approx([1.0, -2.0, 0.5, -2.0])


@given(st.text("abcd", max_size=12), st.text("abcd", max_size=12), st.integers(1, 5))
def test_a_window_lets_the_penalty_see_the_last_bytes_only(prompt, text, window):
    options = {"temperature": 1, "repetition_penalty": 1.7}
    sampler = Sampler(SamplingConfig(repetition_window=window, **options), prompt=prompt.encode())
    for byte in text.encode():
        sampler = sampler.fork()
        sampler.read(byte + BYTE_OFFSET)
    whole = Sampler(SamplingConfig(**options), prompt=(prompt + text).encode()[-window:])
    assert np.array_equal(sampler.probabilities(FOUR), whole.probabilities(FOUR))


def test_choose_draws_from_probabilities_with_the_next_random_number():
    for options in ({"temperature": 0}, {"temperature": 1}, {"top_k": 3, "top_p": 0.9, "min_p": 0.01}):
        one, other = (Sampler(SamplingConfig(seed=5, **options)) for _ in range(2))
        assert [one.choose(FOUR) for _ in range(50)] == [other.draw(other.probabilities(FOUR)) for _ in range(50)]


def test_draw_never_gives_what_has_no_chance():
    class Extreme(Sampler):
        def __init__(self, number):
            super().__init__(SamplingConfig(seed=0))
            self._random.draw = lambda: number

    some = np.array([0.0, 0.3, 0.0, 0.7, 0.0])
    assert Extreme(0.0).draw(some) == 1
    assert Extreme(1 - 2**-53).draw(some) == 3
    assert Extreme(1 - 2**-53).draw(some * 1e-320) in (1, 3)


def test_a_fork_goes_on_as_its_original_would_and_leaves_it_alone():
    options = {"repetition_penalty": 1.5, "regex": "[a-d]*", "temperature": 1, "seed": 3}
    sampler = Sampler(SamplingConfig(**options), prompt=b"abc")
    sampler.read(sampler.choose(FOUR))
    ahead = sampler.fork()
    drafted = []
    for _ in range(20):
        drafted.append(ahead.choose(FOUR))
        ahead.read(drafted[-1])
    chosen = []
    for _ in range(20):
        chosen.append(sampler.choose(FOUR))
        sampler.read(chosen[-1])
    assert drafted == chosen
    assert sampler.choose(FOUR) == ahead.choose(FOUR)


def test_random_numbers_are_spread_evenly_and_differ_between_seeds():
    drawn = np.array([[numbers.draw() for _ in range(200)] for numbers in map(RandomNumbers, range(200))])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 43.8  # chi-square, 19 degrees of freedom, one in a thousand
    first = drawn[:, 0]  # of neighbouring seeds, as the rows of a batch have
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.25
    assert len(np.unique(drawn)) == drawn.size


def test_a_seed_gives_the_numbers_that_splitmix64_is_published_with():
    numbers = RandomNumbers(1234567)
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [numbers.draw() for _ in published] == [(number >> 11) * 2**-53 for number in published]


def test_a_model_whose_logits_are_no_numbers_is_named_as_the_cause():
    with pytest.raises(ModelFolderError, match="nan"):
        Sampler(SamplingConfig()).choose(np.full(VOCABULARY_SIZE, np.nan, np.float32))


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
        ({"min_p": -0.1}, "min_p"),
        ({"min_p": 1.1}, "min_p"),
        ({"min_p": float("nan")}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty"),
        ({"repetition_window": 0}, "repetition_window"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(options, match):
    with pytest.raises(ConfigurationError, match=match):
        SamplingConfig(**options)


def as_users_build(**options):
    """Build a configuration past the types that only these tests check where it is called."""
    config = GenerationConfig()
    for name, value in options.items():
        object.__setattr__(config, name, value)
    config.__post_init__()
    return config


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": "0.7"},
        {"temperature": True},
        {"temperature": None},
        {"temperature": 10**400},
        {"temperature": [1.0]},
        {"top_k": 2.0},
        {"top_k": "3"},
        {"top_p": "0.9"},
        {"min_p": 1j},
        {"repetition_penalty": None},
        {"repetition_penalty": 1e-308},
        {"repetition_penalty": 1e308},
        {"repetition_penalty": float("nan")},
        {"repetition_window": 2.5},
        {"valid_utf8": "no"},
        {"valid_utf8": 1},
        {"regex": b"a"},
        {"regex": 5},
        {"seed": 1.0},
        {"seed": True},
        {"max_new_bytes": "16"},
        {"max_new_bytes": None},
        {"stop": 5},
        {"stop": None},
        {"stop": ["a", 5]},
        {"stop": {"a"}},
        {"logprobs": True},
    ],
    ids=str,
)
def test_values_of_another_type_are_refused_by_name(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))) as refused:
        as_users_build(**options)
    assert "\n" not in str(refused.value)


def test_numbers_of_numpy_are_taken_for_pythons():
    config = as_users_build(
        temperature=np.float32(0.5), top_k=np.int64(3), seed=np.uint64(2**63), max_new_bytes=np.int32(4), top_p=1
    )
    assert [type(getattr(config, name)) for name in ("temperature", "top_k", "seed", "max_new_bytes")] == [
        float,
        int,
        int,
        int,
    ]
    assert Sampler(config).choose(FOUR) == Sampler(GenerationConfig(temperature=0.5, top_k=3, seed=2**63)).choose(FOUR)


@pytest.mark.parametrize("penalty", [1e-3, 1e3])
def test_the_strongest_penalty_leaves_every_number_finite(penalty):
    logits = np.linspace(-3e38, 3e38, VOCABULARY_SIZE).astype(np.float32)
    sampler = Sampler(SamplingConfig(repetition_penalty=penalty), prompt=bytes(range(256)))
    assert np.isfinite(sampler.probabilities(logits)).all()


def test_presence_and_frequency_count_what_was_written_and_not_the_prompt():
    logits = np.zeros(260, np.float32)
    config = SamplingConfig(presence_penalty=0.5, frequency_penalty=0.25, temperature=1.0, valid_utf8=False)
    sampler = Sampler(config, prompt=b"aaaa")
    fork = sampler.fork()
    for byte in b"bbc":
        sampler.read(byte + 4)
    scores = np.log(sampler.probabilities(logits)[BYTE_OFFSET:])
    a, b, c = (scores[byte] for byte in b"abc")
    assert (a - b, a - c) == (pytest.approx(0.5 + 2 * 0.25), pytest.approx(0.5 + 0.25))
    even = fork.probabilities(logits)
    assert even[ord("b") + 4] == even[ord("a") + 4]
    assert np.array_equal(np.log(sampler.fork().probabilities(logits)[BYTE_OFFSET:]), scores)


def test_a_bias_is_added_to_its_ids():
    logits = np.zeros(260, np.float32)
    sampler = Sampler(SamplingConfig(logit_bias={ord("a") + 4: 3, 2: -100}, temperature=1.0))
    found = sampler.probabilities(logits)
    assert np.log(found[ord("a") + 4] / found[ord("b") + 4]) == pytest.approx(3)
    assert np.log(found[EOS_ID] / found[ord("b") + 4]) == pytest.approx(-100)
    assert np.array_equal(sampler.fork().probabilities(logits), sampler.probabilities(logits))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("presence_penalty", 2.5),
        ("frequency_penalty", -3),
        ("frequency_penalty", float("nan")),
        ("logit_bias", {1: 0.5}),
        ("logit_bias", {260: 0.5}),
        ("logit_bias", {5: 101}),
        ("logit_bias", {5: float("nan")}),
    ],
)
def test_penalties_and_biases_that_cannot_be_are_refused(field, value):
    with pytest.raises(ConfigurationError, match=field):
        SamplingConfig(**{field: value})
