"""Byte embedding plus hashed n-grams, which give each byte its near context before the first layer."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from blt.codec import BOE_ID, VOCABULARY_SIZE
from blt.model.configuration import HashConfig
from blt.nn import embedding_bag
from blt.shapes import Float, Int, Tensor

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


def ngram_hashes(
    byte_ids: Int[Tensor, "B T"], positions: Int[Tensor, "B T"], config: HashConfig
) -> Int[Tensor, "B T N"]:
    """Return the table row of every n-gram that ends at each byte.

    h_n(t) = Σ_j id(t−n+1+j)·p^j in wrapping int64, oldest byte first; so h_n(t) = id(t−n+1) + p·h_{n−1}(t).

    Args:
        byte_ids: the ids.
        positions: of each byte in its document; ids before its start count as `BOE_ID`.
        config: sizes of the tables.

    Returns:
        Rows in one table that holds all: function by function, n by n. N = functions × sizes.
    """
    preceding = [byte_ids]
    for back in range(1, longest_ngram(config)):
        earlier = F.pad(byte_ids, (back, 0), value=BOE_ID)[:, : byte_ids.shape[1]]
        preceding.append(torch.where(positions >= back, earlier, BOE_ID))
    return hash_rows(preceding, config)


def longest_ngram(config: HashConfig) -> int:
    """Return the length of the longest n-gram, in bytes; 1 without n-grams."""
    return max(config.ngram_sizes, default=1)


def hash_rows(preceding: Sequence[Int[Tensor, "*S"]], config: HashConfig) -> Int[Tensor, "*S N"]:
    """Return the table rows; `preceding[j]` holds the id j bytes back. See `ngram_hashes`."""
    # The hash is a polynomial in the prime, evaluated by Horner's rule from the newest byte backwards: the n-gram
    # that is one byte longer reuses the shorter one's hash. Overflow is intended: int64 wraps modulo 2^64, in the
    # published code too, so that every device and NumPy give the same rows. `remainder` takes the sign of the
    # divisor, so a hash that wrapped to a negative number still gives a row from 0.
    rows = []
    for function in range(config.num_functions):
        hashed = preceding[0]
        for n in range(2, longest_ngram(config) + 1):
            hashed = preceding[n - 1] + PRIMES[function] * hashed
            if n in config.ngram_sizes:
                table = function * len(config.ngram_sizes) + config.ngram_sizes.index(n)
                rows.append(hashed.remainder(config.num_rows) + table * config.num_rows)
    return torch.stack(rows, dim=-1) if rows else preceding[0].new_zeros(*preceding[0].shape, 0)


class NgramHashes:
    """The same rows on the host (NumPy), for a few bytes at a time: one product with the powers of the primes.

    Args:
        config: sizes of the tables.
    """

    def __init__(self, config: HashConfig) -> None:
        self.longest = longest_ngram(config)
        tables = [(PRIMES[function], n) for function in range(config.num_functions) for n in config.ngram_sizes]
        self._num_rows = config.num_rows
        self._first_rows = np.arange(len(tables)) * config.num_rows
        self._powers = np.zeros((self.longest, len(tables)), dtype=np.int64)
        for table, (prime, n) in enumerate(tables):
            # Powers reduced modulo 2^64 and reinterpreted as int64 give, in wrapping arithmetic, Horner's result bit
            # by bit.
            powers = [pow(prime, n - 1 - back, 2**64) for back in range(n)]
            self._powers[:n, table] = np.array(powers, dtype=np.uint64).astype(np.int64)

    def __call__(self, preceding: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return table rows (… × N) from ids (… × longest), newest first; see `ngram_hashes`."""
        hashed = (preceding[..., None] * self._powers).sum(-2)  # wraps modulo 2^64, as intended
        return hashed % self._num_rows + self._first_rows


class HashEmbedding(nn.Module):
    """Byte embedding plus the sum of its hashed n-grams' rows.

    `sparse_gradients`, off by default, makes the tables' gradient sparse: it holds only the rows that a batch reads.
    `dropout`, 0 by default, is the probability that a byte's n-grams are dropped in training; the others are scaled up.
    """

    def __init__(self, config: HashConfig, *, dim: int) -> None:
        super().__init__()
        self.config = config
        self.bytes = nn.Embedding(VOCABULARY_SIZE, dim)
        num_tables = config.num_functions * len(config.ngram_sizes)
        self.ngrams = nn.Embedding(num_tables * config.num_rows, dim) if num_tables else None
        self.sparse_gradients = False
        self.dropout = 0.0

    def forward(self, byte_ids: Int[Tensor, "B T"], hashes: Int[Tensor, "B T N"]) -> Float[Tensor, "B T D"]:
        """Embed each byte together with the n-grams that end at it."""
        embedded = self.bytes(byte_ids)
        if self.ngrams is None:
            return embedded
        summed = embedding_bag(hashes.flatten(0, 1), self.ngrams.weight, sparse=self.sparse_gradients)  # B·T D
        if self.training and self.dropout:
            summed = summed * F.dropout(summed.new_ones(len(summed), 1), self.dropout)
        return embedded + summed.view_as(embedded)

    @torch.no_grad()
    def initialise(self) -> None:
        """Initialise weights; the n-grams of a byte together have a tenth of the byte's standard deviation."""
        std = self.bytes.embedding_dim**-0.5
        nn.init.normal_(self.bytes.weight, std=std)
        if self.ngrams is not None:
            num_tables = self.config.num_functions * len(self.config.ngram_sizes)
            nn.init.normal_(self.ngrams.weight, std=0.1 * std * num_tables**-0.5)
