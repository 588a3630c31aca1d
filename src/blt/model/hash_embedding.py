"""Byte embedding plus hashed n-grams, which give each byte its near context before the first layer."""

import torch
from torch import nn
from torch.nn import functional as F

from blt.codec import BOE_ID, VOCABULARY_SIZE
from blt.model.configuration import HashConfig
from blt.ops import HostHashes, embedding_bag, hash_ngrams
from blt.shapes import Float, Int, Tensor


def ngram_hashes(
    byte_ids: Int[Tensor, "B T"], positions: Int[Tensor, "B T"], config: HashConfig
) -> Int[Tensor, "B T N"]:
    """Return the table row of every n-gram that ends at each byte.

    Args:
        byte_ids: the ids.
        positions: of each byte in its document; ids before its start count as `BOE_ID`.
        config: sizes of the tables.

    Returns:
        Rows in one table that holds all; see `blt.ops.hash_ngrams`. N = functions × sizes.
    """
    preceding = [byte_ids]
    for back in range(1, longest_ngram(config)):
        earlier = F.pad(byte_ids, (back, 0), value=BOE_ID)[:, : byte_ids.shape[1]]
        preceding.append(torch.where(positions >= back, earlier, BOE_ID))
    return hash_ngrams(
        preceding, sizes=config.ngram_sizes, num_functions=config.num_functions, num_rows=config.num_rows
    )


def host_hashes(config: HashConfig) -> HostHashes:
    """Return the same hashes on the host, for a few bytes at a time."""
    return HostHashes(sizes=config.ngram_sizes, num_functions=config.num_functions, num_rows=config.num_rows)


def longest_ngram(config: HashConfig) -> int:
    """Return the length of the longest n-gram, in bytes; 1 without n-grams."""
    return max(config.ngram_sizes, default=1)


class NgramTable(nn.Embedding):
    """The rows of all hashed n-grams."""

    def forward(self, hashes: Int[Tensor, "Z N"], *, sparse: bool = False) -> Float[Tensor, "Z D"]:
        """Sum the rows of each byte's n-grams; with `sparse`, the gradient holds only the rows that were read."""
        return embedding_bag(hashes, self.weight, sparse=sparse)


class HashEmbedding(nn.Module):
    """Byte embedding plus the sum of its hashed n-grams' rows.

    `sparse_gradients`, off by default, makes the tables' gradient sparse: it holds only the rows that a batch reads.
    `dropout`, 0 by default, is the probability that a byte's n-grams are dropped in training; the others are scaled up.
    """

    def __init__(self, config: HashConfig, *, dim: int) -> None:
        super().__init__()
        self.config = config
        self.bytes = nn.Embedding(VOCABULARY_SIZE, dim)
        self.ngrams = NgramTable(config.num_tables * config.num_rows, dim) if config.num_tables else None
        self.sparse_gradients = False
        self.dropout = 0.0

    def forward(self, byte_ids: Int[Tensor, "B T"], hashes: Int[Tensor, "B T N"]) -> Float[Tensor, "B T D"]:
        """Embed each byte together with the n-grams that end at it."""
        embedded = self.bytes(byte_ids)
        if self.ngrams is None:
            return embedded
        summed = self.ngrams(hashes.flatten(0, 1), sparse=self.sparse_gradients)  # B·T D
        if self.training and self.dropout:
            summed = summed * F.dropout(summed.new_ones(len(summed), 1), self.dropout)
        return embedded + summed.view_as(embedded)

    @torch.no_grad()
    def initialise(self) -> None:
        """Initialise weights; the n-grams of a byte together have a tenth of the byte's standard deviation."""
        std = self.bytes.embedding_dim**-0.5
        nn.init.normal_(self.bytes.weight, std=std)
        if self.ngrams is not None:
            nn.init.normal_(self.ngrams.weight, std=0.1 * std * self.config.num_tables**-0.5)
