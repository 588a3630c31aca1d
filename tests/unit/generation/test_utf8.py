"""Bytes that keep a text UTF-8, against Python's own decoder."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blt.codec import BYTE_OFFSET, EOS_ID, VOCABULARY_SIZE
from blt.generation import Sampler, SamplingConfig
from blt.generation.utf8 import Utf8State, is_utf8

EDGES = ["\0", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"]


def decodes(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def can_be_completed(data: bytes) -> bool:
    """Whether some bytes make a text of it: tried with all continuations that a character can need."""
    tails = [b"", *(bytes([second]) + b"\x80" * more for second in (0x80, 0x90, 0xA0) for more in range(3))]
    return any(decodes(data + tail) for tail in tails)


def allowed(state: Utf8State, *, room: int | None = None) -> set[int]:
    return set(np.flatnonzero(state.penalties(room=room) == 0).tolist())


def prefixes() -> list[bytes]:
    """Every way a character can begin, but for bytes that make no difference to what follows."""
    steps = [*range(0x80), *range(0xC0, 0x100)]
    ones = [bytes([byte]) for byte in steps if can_be_completed(bytes([byte]))]
    twos = [one + bytes([byte]) for one in ones for byte in (0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF)]
    threes = [two + bytes([byte]) for two in twos for byte in (0x80, 0xBF)]
    return [b"", *(data for data in (*ones, *twos, *threes) if can_be_completed(data))]


def test_after_every_beginning_of_a_character_exactly_the_bytes_may_come_that_python_accepts():
    tried = prefixes()
    assert len(tried) > 500
    for prefix in tried:
        expected = {byte + BYTE_OFFSET for byte in range(256) if can_be_completed(prefix + bytes([byte]))}
        expected |= {EOS_ID} if decodes(prefix) else set()
        assert allowed(Utf8State(prefix)) == expected, prefix


@given(st.text(alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from(EDGES))), st.integers(0, 3))
def test_along_a_text_every_byte_may_come_and_eos_between_characters_only(text, cut):
    data = text.encode()
    prompt, rest = data[:cut], data[cut:]
    state, read = Utf8State(prompt), prompt
    for byte in rest:
        assert byte + BYTE_OFFSET in allowed(state)
        assert (EOS_ID in allowed(state)) == state.is_between_characters == decodes(read)
        state.read(byte)
        read += bytes([byte])
    assert state.is_between_characters


@settings(deadline=None)
@given(st.text(max_size=5), st.integers(0, 2**32), st.integers(1, 12), st.integers(0, 3))
def test_what_is_sampled_decodes_whatever_the_logits_the_prompt_and_the_room(text, seed, room, cut):
    prompt = text.encode()[: -cut or None]
    sampler, random = Sampler(SamplingConfig(temperature=3, seed=seed), prompt=prompt), np.random.default_rng(seed)
    data, left = prompt, room + 3  # what completes the prompt's last character
    while left:
        chosen = sampler.choose(random.standard_normal(VOCABULARY_SIZE).astype(np.float32), room=left)
        sampler.read(chosen)
        if chosen == EOS_ID:
            break
        data += bytes([chosen - BYTE_OFFSET])
        left -= 1
    assert decodes(data)


@pytest.mark.parametrize(("room", "longest"), [(1, 1), (2, 2), (3, 3), (4, 4), (9, 4), (None, 4)])
def test_no_character_begins_that_does_not_fit(room, longest):
    begun = {chr(point).encode() for point in (0x41, 0xE9, 0x20AC, 0x1F642)}
    may_come = allowed(Utf8State(), room=room)
    assert {len(character) for character in begun if character[0] + BYTE_OFFSET in may_come} == {*range(1, longest + 1)}
    assert EOS_ID in may_come


def test_a_character_that_has_begun_goes_on_whether_it_fits_or_not():
    assert allowed(Utf8State("🙂".encode()[:1]), room=1) == allowed(Utf8State("🙂".encode()[:1]))


@given(st.binary(max_size=12))
@example(b"\xed\xa0")
def test_bytes_are_utf8_so_far_exactly_if_something_completes_them(data):
    assert is_utf8(data) == can_be_completed(data)


@given(st.binary(max_size=12))
def test_after_bytes_that_are_no_text_a_character_that_begins_is_still_completed(data):
    state = Utf8State()
    for byte in data:
        state.read(byte)
    ends_at_first = next(cut for cut in range(len(data) + 1) if is_utf8(data[cut:]))
    assert allowed(state) == allowed(Utf8State(data)) == allowed(Utf8State(data[ends_at_first:]))


@pytest.mark.parametrize(
    ("valid_utf8", "prompt", "is_kept"),
    [
        (None, b"", True),
        (None, "Zoë".encode(), True),
        (None, "Zoë".encode()[:-1], True),
        (None, b"\xff", False),
        (None, b"\xc3A", False),
        (True, b"\xff", True),
        (False, b"", False),
    ],
)
def test_utf8_is_kept_by_default_where_the_prompt_is_utf8(valid_utf8, prompt, is_kept):
    chances = Sampler(SamplingConfig(temperature=1, valid_utf8=valid_utf8), prompt=prompt).probabilities(
        np.zeros(VOCABULARY_SIZE, np.float32)
    )
    assert (chances[0xFF + BYTE_OFFSET] == 0) == is_kept


def test_a_fork_reads_for_itself():
    state = Utf8State("é".encode()[:1])
    ahead = state.fork()
    ahead.read(0xA9)
    assert ahead.is_between_characters
    assert not state.is_between_characters
