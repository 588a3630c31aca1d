import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt.evaluation.perturbations import PERTURBATIONS, characters, perturb

TEXT = "Tom had a red ball. Anna saw it and ran to him."
RANDOM = ["drop", "randomcase", "repeat"]


def test_antspeak_is_upper_case_with_a_space_between_any_two_characters():
    assert perturb(b"Red ant.", "antspeak") == b"R E D   A N T ."


def test_uppercase_is_upper_case():
    assert perturb("Zoë saw straße, жук и 魚.".encode(), "uppercase").decode() == "ZOË SAW STRASSE, ЖУК И 魚."


def test_drop_leaves_a_tenth_of_the_characters_out_and_the_rest_in_order():
    text = "".join(chr(0x4E00 + number) for number in range(200))
    found = perturb(text.encode(), "drop").decode()
    assert len(found) == 180
    assert list(found) == sorted(set(found))


def test_repeat_repeats_a_fifth_of_the_characters_one_to_four_times():
    text = "".join(chr(0x4E00 + number) for number in range(200))
    found = perturb(text.encode(), "repeat").decode()
    counts = [found.count(character) for character in text]
    assert found == "".join(character * count for character, count in zip(text, counts, strict=True))
    assert sum(count > 1 for count in counts) == 40
    assert set(counts) == {1, 2, 3, 4, 5}


def test_randomcase_puts_half_of_the_characters_in_upper_case():
    found = perturb(b"aBcD" * 50, "randomcase").decode()
    assert found.lower() == "abcd" * 50
    assert sum(character.isupper() for character in found) == 100
    assert {found[number] for number in range(0, 200, 4)} == {"a", "A"}


@pytest.mark.parametrize("name", RANDOM)
def test_the_seed_chooses_the_characters(name):
    assert perturb(TEXT.encode(), name, seed=3) == perturb(TEXT.encode(), name, seed=3)
    assert len({perturb(TEXT.encode(), name, seed=(5, number)) for number in range(5)}) > 1


def test_combining_marks_stay_with_their_letters():
    assert characters("e\u0301a हिन्दी") == ["e\u0301", "a", " ", "हि", "न्", "दी"]
    assert perturb("हिन्दी".encode(), "antspeak").decode() == "हि न् दी"


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_bytes_that_are_no_utf8_pass_through(name):
    broken = b"\xff\xfe\xe2\x82"
    assert perturb(broken, name) == broken
    found = perturb(b"ab" + broken + b"cd", name)
    assert broken in found
    assert b" " + broken not in found


@given(st.text() | st.binary(), st.sampled_from(sorted(PERTURBATIONS)), st.integers(0, 2**32))
def test_any_text_can_be_perturbed(text, name, seed):
    data = text.encode("utf-8", errors="replace") if isinstance(text, str) else text
    found = perturb(data, name, seed=seed)
    try:
        data.decode()
    except UnicodeDecodeError:
        return
    found.decode()


def test_the_empty_text_stays_empty():
    assert [perturb(b"", name) for name in PERTURBATIONS] == [b""] * 5
    assert PERTURBATIONS["drop"]([], np.random.default_rng(0)) == []
