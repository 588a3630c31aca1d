import math

import numpy as np
import pytest

from blt.errors import ConfigurationError, DataError
from blt.evaluation.continuations import ByteScorer
from blt.evaluation.noise import MAX_CONTINUATION, PAIRS, PLACES, items_of, measure_noise
from blt.evaluation.perturbations import PERTURBATIONS, perturb

DOCUMENTS = [
    "Tom had a red ball. Anna saw it and ran to him, and they played until the sun went down over the hill.",
    "Once upon a time there was a big dog. The dog liked to dig. One day the dog found a bone under the tree.",
    "Lily and Ben went to the park. They saw a duck in the pond, and the duck said quack to all of them there.",
    "Zoë aß Öl. Émile était là, et il a dit que la mer était bleue et que le ciel était gris ce matin d'avril.",
    "Too short.",
]
DATA = [document.encode() for document in DOCUMENTS]


class Knows:
    """A scorer that finds true clean continuations likely, and nothing else."""

    def __init__(self, documents):
        self.documents, self.pairs = documents, []

    def logprobs(self, pairs):
        self.pairs += pairs
        return [-len(end) * (1 if any(start + end in text for text in self.documents) else 2) for start, end in pairs]


def test_an_item_is_a_documents_start_and_what_follows_up_to_the_end_of_a_word():
    items = items_of(DATA, seed=0)
    assert [item.number for item in items] == [0, 1, 2, 3]
    for item in items:
        text = DATA[item.number]
        assert text.startswith(item.prompt + item.true)
        assert item.true.startswith(b" ")
        assert 16 <= len(item.true.decode()) <= MAX_CONTINUATION
        assert text[len(item.prompt + item.true) :][:1] in (b" ", b"")


def test_the_pairs_are_another_documents_continuation_and_two_swapped_words():
    items = items_of(DATA, seed=0)
    assert {item.other for item in items} == {item.true for item in items}
    for item in items:
        assert item.other != item.true != item.swapped
        words, swapped = item.true.split(b" "), item.swapped.split(b" ")
        assert sorted(words) == sorted(swapped)
        assert sum(a != b for a, b in zip(words, swapped, strict=True)) == 2
    assert items == items_of(DATA, seed=0)
    assert items != items_of(DATA, seed=1)


def test_without_words_two_characters_are_swapped():
    texts = ["".join(chr(0x4E00 + 100 * row + number) for number in range(90)).encode() for row in range(2)]
    for item in items_of(texts, seed=0):
        differ = [a != b for a, b in zip(item.true.decode(), item.swapped.decode(), strict=True)]
        assert sum(differ) == 2
        assert len(differ) == 45


def test_bytes_that_are_no_utf8_stay_as_they_are():
    items = items_of([b"\xff\xfe" * 50, *DATA[:2], b"\xff\xfe\xfd and so " * 9], seed=0)
    assert (items[0].prompt + items[0].true) in b"\xff\xfe" * 50
    assert items[-1].prompt.startswith(b"\xff\xfe\xfd")


def test_noise_is_put_where_it_is_said_and_on_both_sides_of_a_pair_alike():
    scorer = Knows(DATA)
    measure_noise(scorer, DATA, bootstrap=0, seed=4)
    items, pairs = items_of(DATA, seed=4), iter(scorer.pairs)
    conditions = [(None, None), *[(name, place) for name in PERTURBATIONS for place in PLACES]]
    for name, place in conditions:
        for item in items:
            for side in ("true", *PAIRS):
                prompt, continuation = next(pairs)
                wanted = item.prompt, getattr(item, side)
                if place in ("prompt", "both"):
                    wanted = perturb(wanted[0], name, seed=(4, item.number, 0)), wanted[1]
                if place in ("continuation", "both"):
                    wanted = wanted[0], perturb(wanted[1], name, seed=(4, item.number, 1))
                assert (prompt, continuation) == wanted
    assert next(pairs, None) is None


def test_bits_and_accuracy_are_those_of_the_scorer():
    found = measure_noise(Knows(DATA), DATA, bootstrap=20)
    assert found.num_documents == 4
    assert found.num_left_out == 1
    assert found.num_bytes == sum(len(item.true) for item in items_of(DATA, seed=0))
    assert found.clean.bits_per_byte.value == pytest.approx(1 / math.log(2))
    assert [found.clean.accuracy[pair].value for pair in PAIRS] == [1, 1]
    assert len(found.noised) == 15
    for condition in found.noised:
        assert condition.bits_per_byte.value == pytest.approx(2 / math.log(2))
        assert [condition.accuracy[pair].value for pair in PAIRS] == [0.5, 0.5]  # ties
        assert [condition.lost[pair].value for pair in PAIRS] == [0.5, 0.5]
    antspeak = next(one for one in found.noised if (one.perturbation, one.place) == ("antspeak", "continuation"))
    assert antspeak.bits_per_clean_byte.value == pytest.approx(antspeak.bits_per_byte.value * 2, rel=0.05)
    assert found.average.lost["other"].value == pytest.approx(0.5)
    assert found.average.bits_per_byte.value == pytest.approx(2 / math.log(2))


def test_intervals_are_over_documents_and_repeatable():
    class Uneven(Knows):
        def logprobs(self, pairs):
            return [-float(sum(start + end)) for start, end in pairs]

    found = measure_noise(Uneven(DATA), DATA, bootstrap=50, seed=1)
    again = measure_noise(Uneven(DATA), DATA, bootstrap=50, seed=1)
    assert found.to_dict() | {"seconds": 0} == again.to_dict() | {"seconds": 0}
    figure = found.clean.bits_per_byte
    assert figure.low < figure.value < figure.high
    without = measure_noise(Uneven(DATA), DATA, bootstrap=0).to_dict()
    assert without["clean"]["bits_per_byte"]["low"] is None
    assert without["chance"] == 0.5


def test_a_byte_model_is_measured(tiny_lm):
    told = []
    found = measure_noise(ByteScorer(tiny_lm), DATA[:3], bootstrap=0, progress=lambda *done: told.append(done))
    bits = [
        tiny_lm.score(item.prompt + item.true).bits_by_byte[len(item.prompt) : -1].sum()
        for item in items_of(DATA[:3], seed=0)
    ]
    assert found.clean.bits_per_byte.value * found.num_bytes == pytest.approx(sum(bits), rel=1e-5)
    assert np.isfinite([condition.bits_per_byte.value for condition in found.noised]).all()
    assert told[-1] == (16, 16)


def test_what_cannot_be_measured_is_refused(tiny_lm):
    with pytest.raises(DataError, match="1 of 2 documents can be divided"):
        measure_noise(ByteScorer(tiny_lm), [DATA[0], b"short"])
    with pytest.raises(DataError, match="0 of 2 documents can be divided"):
        measure_noise(ByteScorer(tiny_lm), [b"a" * 100, b"b" * 100])
    with pytest.raises(ConfigurationError, match="0 or more"):
        measure_noise(ByteScorer(tiny_lm), DATA, bootstrap=-1)
