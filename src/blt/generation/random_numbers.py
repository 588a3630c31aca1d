"""Random numbers of one row, cheap to fork (SplitMix64: Steele, Lea and Flood 2014, "Fast splittable …", figure 17)."""

import secrets

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15


class RandomNumbers:
    """Uniform numbers, the same for the same seed on every machine.

    Python's own generator has 2.5 kB of state, so that a copy of it takes longer than choosing a byte.

    Args:
        seed: at least 0; None means another sequence every time.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.state = secrets.randbits(64) if seed is None else seed & _MASK
        """All that the numbers to come depend on: 64 bits."""

    def draw(self) -> float:
        """Return the next number, from 0 to below 1."""
        self.state = mixed = (self.state + _STEP) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return float((mixed ^ (mixed >> 31)) >> 11) * 2**-53

    def fork(self) -> "RandomNumbers":
        """Return an independent copy with the same numbers to come."""
        return RandomNumbers(self.state)
