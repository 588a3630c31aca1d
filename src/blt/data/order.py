"""The order in which an epoch reads its windows: a permutation of 0 … n − 1 that is a pure function of seed and epoch.

It is computed place by place and needs no table: a keyed bijection on the bits of a number (an alternating Feistel
network) is applied again until the result lies below n (cycle walking; Black and Rogaway 2002). So any step of any
epoch costs the same in a corpus of any size, and a resumed run, or one on other ranks, reads what it would have read.

Runs that an earlier blt began read in the order of a sorted table, `table_order`, which needs memory for every window.
"""

import numpy as np
from numpy.typing import NDArray

from blt.configuration import check

TABLE, KEYED = 1, 2
"""Versions of the order; a run keeps the one that it began with."""
NUM_ROUNDS = 8
"""Rounds of the Feistel network, which takes a key of 64 bits for each."""
_MIN_BITS = 4
"""Bits that are permuted at least: halves of one bit or two would give few different orders."""


def raw_bits(count: int, *, seed: int, epoch: int, source: int = 0) -> NDArray[np.uint64]:
    """Return random numbers of 64 bits, from the raw output of Philox, which no version of NumPy may change.

    Args:
        count: how many.
        seed: of the run.
        epoch: of the source.
        source: which part of a mixture it is; 0 also stands for a corpus that is no mixture.
    """
    key = [seed, epoch, source] if source else [seed, epoch]
    return np.asarray(np.random.Philox(np.random.SeedSequence(key)).random_raw(count), np.uint64)


def keyed_order(places: NDArray[np.int64], *, size: int, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return what stands at some places of a permutation of 0 … size − 1.

    Args:
        places: from 0 to below size.
        size: of the permutation.
        keys: choose it, one for each round.

    Raises:
        ConfigurationError: a place lies outside.
    """
    check(bool(((places >= 0) & (places < size)).all()), f"places: expected 0 to {size - 1}")
    num_bits = max((size - 1).bit_length(), _MIN_BITS)
    # Less than half of the numbers lie at `size` or above (but in the smallest permutations), and the walk from a place
    # stays on that place's own cycle, where it meets a number below `size` at the latest when it comes back.
    found = _permute(places.astype(np.uint64), num_bits=num_bits, keys=keys)
    while (outside := found >= size).any():
        found[outside] = _permute(found[outside], num_bits=num_bits, keys=keys)
    return found.astype(np.int64)


def table_order(size: int, *, bits: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return a permutation of 0 … size − 1 as a table: the order in which random numbers sort.

    Args:
        size: of the permutation.
        bits: as many random numbers.
    """
    # argsort is stable and Philox's raw output is fixed, whereas the algorithm of `Generator.permutation` may change
    # between versions of NumPy, and a resumed run would then read other windows.
    return np.argsort(bits[:size], kind="stable")


def _permute(values: NDArray[np.uint64], *, num_bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Permute the numbers of `num_bits` bits: each round mixes one half of the bits into the other, in turn."""
    low_bits = np.uint64(num_bits // 2)
    low_mask = (np.uint64(1) << low_bits) - np.uint64(1)
    high_mask = (np.uint64(1) << np.uint64(num_bits - num_bits // 2)) - np.uint64(1)
    low, high = values & low_mask, values >> low_bits
    for number, key in enumerate(keys):
        if number % 2:
            low = low ^ (_mixed(high, key) & low_mask)
        else:
            high = high ^ (_mixed(low, key) & high_mask)
    return (high << low_bits) | low


def _mixed(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """Return numbers that depend on every bit of a value and of the key: the finaliser of SplitMix64 (Steele 2014)."""
    mixed = values + key  # arrays of uint64 wrap around without a word
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
