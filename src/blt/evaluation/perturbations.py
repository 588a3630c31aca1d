"""The BLT paper's five perturbations of a text (section 6.1), on characters of any script.

`antspeak`: all upper case, and a space between any two characters. `drop`: a tenth of the characters is left out.
`randomcase`: half of the characters, chosen at random, in upper case, the others in lower case. `repeat`: a fifth of
the characters is repeated, each one to four times more. `uppercase`: all upper case.

A character is a code point with the combining marks that follow it, so no accent or vowel sign loses its letter.
Scripts without case pass through `randomcase` and `uppercase`. Bytes that are no UTF-8 pass through all five, and no
space is put beside them. The paper does not say how a share is drawn; here it is exact, rounded to whole characters,
and which characters it falls on depends on the generator alone.
"""

import re
import unicodedata
from collections.abc import Callable

import numpy as np

Perturbation = Callable[[list[str], np.random.Generator], list[str]]
"""Turns the characters of a text into others."""

DROPPED = 0.1
"""Share of the characters that `drop` leaves out."""
REPEATED = 0.2
"""Share of the characters that `repeat` repeats."""
MAX_REPEATS = 4
"""How many times more a character is written at most."""

_NO_UTF8 = re.compile("([\udc80-\udcff]+)")


def perturb(data: bytes, name: str, *, seed: int | tuple[int, ...] = 0) -> bytes:
    """Return a text with one of the perturbations.

    Args:
        data: the text.
        name: a key of `PERTURBATIONS`.
        seed: chooses the characters that `drop`, `randomcase` and `repeat` change.
    """
    generator = np.random.default_rng(seed)
    runs = _NO_UTF8.split(data.decode("utf-8", errors="surrogateescape"))  # every second one is no UTF-8
    for number in range(0, len(runs), 2):
        runs[number] = "".join(PERTURBATIONS[name](characters(runs[number]), generator))
    return "".join(runs).encode("utf-8", errors="surrogateescape")


def characters(text: str) -> list[str]:
    """Divide a text into code points, each with the combining marks that follow it."""
    found: list[str] = []
    for point in text:
        if found and unicodedata.category(point).startswith("M"):
            found[-1] += point
        else:
            found.append(point)
    return found


def antspeak(text: list[str], generator: np.random.Generator) -> list[str]:
    """Put all characters in upper case, and a space between any two."""
    return list(" ".join(uppercase(text, generator)))


def drop(text: list[str], generator: np.random.Generator) -> list[str]:
    """Leave a tenth of the characters out."""
    left_out = _chosen(len(text), DROPPED, generator)
    return [character for character, is_out in zip(text, left_out, strict=True) if not is_out]


def randomcase(text: list[str], generator: np.random.Generator) -> list[str]:
    """Put half of the characters in upper case and the others in lower case."""
    is_upper = _chosen(len(text), 0.5, generator)
    return [c.upper() if upper else c.lower() for c, upper in zip(text, is_upper, strict=True)]


def repeat(text: list[str], generator: np.random.Generator) -> list[str]:
    """Write a fifth of the characters one to four times more."""
    is_repeated = _chosen(len(text), REPEATED, generator)
    times = 1 + is_repeated * generator.integers(1, MAX_REPEATS, size=len(text), endpoint=True)
    return [character * int(count) for character, count in zip(text, times, strict=True)]


def uppercase(text: list[str], generator: np.random.Generator) -> list[str]:  # noqa: ARG001 (as the others)
    """Put all characters in upper case."""
    return [character.upper() for character in text]


PERTURBATIONS: dict[str, Perturbation] = {
    "antspeak": antspeak,
    "drop": drop,
    "randomcase": randomcase,
    "repeat": repeat,
    "uppercase": uppercase,
}
"""All five, by name, in the order of the paper's table."""


def _chosen(count: int, share: float, generator: np.random.Generator) -> np.ndarray:
    """Choose a share of places, rounded to a whole number of them: booleans."""
    found = np.zeros(count, bool)
    found[generator.permutation(count)[: round(count * share)]] = True
    return found
