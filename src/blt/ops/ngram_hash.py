"""The rolling hash of n-grams, on tensors and, for a few bytes at a time, on the host."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from blt.shapes import Int, Tensor

PRIMES = (
    1000000007,
    5915587277,
    1500450271,
    3267000013,
    5754853343,
    4093082899,
    9576890767,
    3628273133,
    2860486313,
    5463458053,
    3367900313,
)
"""Prime base of each hash function, in the order of the published weights."""


def hash_ngrams(
    preceding: Sequence[Int[Tensor, "*S"]], *, sizes: Sequence[int], num_functions: int, num_rows: int
) -> Int[Tensor, "*S N"]:
    """Return the table row of every n-gram that ends at each byte.

    h_n(t) = Σ_j id(t−n+1+j)·p^j in wrapping int64, oldest byte first; so h_n(t) = id(t−n+1) + p·h_{n−1}(t).

    Args:
        preceding: `preceding[j]` holds the id j bytes back.
        sizes: n of each table of a function.
        num_functions: hash functions, each with tables and a prime of its own.
        num_rows: rows of a table.

    Returns:
        Rows in one table that holds all: function by function, n by n. N = functions × sizes.
    """
    # The hash is a polynomial in the prime, evaluated by Horner's rule from the newest byte backwards: the n-gram
    # that is one byte longer reuses the shorter one's hash. Overflow is intended: int64 wraps modulo 2^64, in the
    # published code too, so that every device and NumPy give the same rows. `remainder` takes the sign of the
    # divisor, so a hash that wrapped to a negative number still gives a row from 0.
    rows = []
    for function in range(num_functions):
        hashed = preceding[0]
        for n in range(2, max(sizes, default=1) + 1):
            hashed = preceding[n - 1] + PRIMES[function] * hashed
            if n in sizes:
                table = function * len(sizes) + sizes.index(n)
                rows.append(hashed.remainder(num_rows) + table * num_rows)
    return torch.stack(rows, dim=-1) if rows else preceding[0].new_zeros(*preceding[0].shape, 0)


class HostHashes:
    """The same rows on the host (NumPy), for a few bytes at a time: one product with the powers of the primes.

    Args:
        sizes: n of each table of a function.
        num_functions: hash functions.
        num_rows: rows of a table.
    """

    def __init__(self, *, sizes: Sequence[int], num_functions: int, num_rows: int) -> None:
        self.longest = max(sizes, default=1)
        tables = [(PRIMES[function], n) for function in range(num_functions) for n in sizes]
        self._num_rows = num_rows
        self._first_rows = np.arange(len(tables)) * num_rows
        self._powers = np.zeros((self.longest, len(tables)), dtype=np.int64)
        for table, (prime, n) in enumerate(tables):
            # Powers reduced modulo 2^64 and reinterpreted as int64 give, in wrapping arithmetic, Horner's result bit
            # by bit.
            powers = [pow(prime, n - 1 - back, 2**64) for back in range(n)]
            self._powers[:n, table] = np.array(powers, dtype=np.uint64).astype(np.int64)

    def __call__(self, preceding: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return table rows (… × N) from ids (… × longest), newest first; see `hash_ngrams`."""
        hashed = (preceding[..., None] * self._powers).sum(-2)  # wraps modulo 2^64, as intended
        return hashed % self._num_rows + self._first_rows
