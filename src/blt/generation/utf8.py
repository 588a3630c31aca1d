"""Which bytes may follow so that the whole stays UTF-8 (RFC 3629: shortest forms, no surrogates, to U+10FFFF)."""

import codecs

import numpy as np
import numpy.typing as npt

from blt.codec import BYTE_OFFSET, EOS_ID, VOCABULARY_SIZE

_BETWEEN, _ONE_MORE, _TWO_MORE, _THREE_MORE, _AFTER_E0, _AFTER_ED, _AFTER_F0, _AFTER_F4 = range(8)
"""States: between characters; 1, 2 or 3 continuation bytes missing; after a first byte that narrows the second."""

# UTF-8 as a finite automaton of eight states. Four states only count missing continuation bytes. The other four follow
# E0, ED, F0 and F4, after which the second byte has a narrower range: that is where overlong forms, surrogates and code
# points beyond U+10FFFF are excluded, so the third and fourth bytes need no further states. Everything that depends on
# state and room alone is tabulated when this module is imported; choosing a byte then is a table lookup.
_ARROWS: dict[int, list[tuple[int, int, int]]] = {
    _BETWEEN: [
        (0x00, 0x7F, _BETWEEN),
        (0xC2, 0xDF, _ONE_MORE),
        (0xE0, 0xE0, _AFTER_E0),
        (0xE1, 0xEC, _TWO_MORE),
        (0xED, 0xED, _AFTER_ED),
        (0xEE, 0xEF, _TWO_MORE),
        (0xF0, 0xF0, _AFTER_F0),
        (0xF1, 0xF3, _THREE_MORE),
        (0xF4, 0xF4, _AFTER_F4),
    ],
    _ONE_MORE: [(0x80, 0xBF, _BETWEEN)],
    _TWO_MORE: [(0x80, 0xBF, _ONE_MORE)],
    _THREE_MORE: [(0x80, 0xBF, _TWO_MORE)],
    _AFTER_E0: [(0xA0, 0xBF, _ONE_MORE)],  # below: overlong
    _AFTER_ED: [(0x80, 0x9F, _ONE_MORE)],  # above: surrogates
    _AFTER_F0: [(0x90, 0xBF, _TWO_MORE)],  # below: overlong
    _AFTER_F4: [(0x80, 0x8F, _TWO_MORE)],  # above: beyond U+10FFFF
}
"""From what has been read, by bytes (first, last), to what then has been read; any other byte breaks UTF-8."""

_LACKING = [0, 1, 2, 3, 2, 2, 3, 3]
"""How many bytes still lack in each state."""

LONGEST = 4
"""Bytes of the longest character."""


def _next_states() -> list[list[int | None]]:
    table: list[list[int | None]] = [[None] * 256 for _ in _ARROWS]
    for state, arrows in _ARROWS.items():
        for first, last, following in arrows:
            table[state][first : last + 1] = [following] * (last + 1 - first)
    return table


_NEXT = _next_states()


def _penalties(state: int, room: int) -> npt.NDArray[np.float64]:
    """Return what is added to the logits: 0 for what may follow and fits into `room` bytes, −∞ for everything else."""
    added = np.full(VOCABULARY_SIZE, -np.inf)
    is_inside = state != _BETWEEN  # a character that has begun goes on, whether it fits or not
    for byte, following in enumerate(_NEXT[state]):
        if following is not None and (is_inside or 1 + _LACKING[following] <= room):
            added[byte + BYTE_OFFSET] = 0.0
    if not is_inside:
        added[EOS_ID] = 0.0
    added.setflags(write=False)
    return added


_PENALTIES = [[_penalties(state, room) for room in range(LONGEST + 1)] for state in _ARROWS]


class Utf8State:
    """Follows bytes, and knows which ones may come next.

    Args:
        prompt: what has been read; only a character left unfinished at its end matters.
    """

    def __init__(self, prompt: bytes = b"") -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        decoder.decode(prompt)
        self.state = _BETWEEN
        """What has been read of a character, one of eight."""
        for byte in decoder.getstate()[0]:
            self.read(byte)

    @property
    def is_between_characters(self) -> bool:
        """Whether no character is unfinished, so that a text may end here."""
        return self.state == _BETWEEN

    def penalties(self, *, room: int | None = None) -> npt.NDArray[np.float64]:
        """Return what to add to the logits of all 260 ids: 0 where UTF-8 allows the id, −∞ elsewhere; read-only.

        Args:
            room: bytes left; no character begins that does not fit. None means any number.
        """
        return _PENALTIES[self.state][LONGEST if room is None else max(0, min(room, LONGEST))]

    def read(self, byte: int) -> None:
        """Advance by a byte; one that breaks UTF-8 resets the state, and begins a character if it can."""
        following = _NEXT[self.state][byte]
        if following is None:
            following = _NEXT[_BETWEEN][byte]
        self.state = _BETWEEN if following is None else following

    def fork(self) -> "Utf8State":
        """Return an independent copy."""
        copy = object.__new__(Utf8State)
        copy.state = self.state
        return copy


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8, but for a character that may be unfinished at their end."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(data)
    except UnicodeDecodeError:
        return False
    unfinished = decoder.getstate()[0]
    return not (unfinished[:1] == b"\xed" and unfinished[1:] >= b"\xa0")  # a surrogate, refused at its third byte only
