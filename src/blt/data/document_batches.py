"""Whole documents in batches, for evaluation and for computing entropies."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from blt.codec import EOS_ID
from blt.configuration import check
from blt.data.shards import Shards
from blt.shapes import Int, Tensor


@dataclass(frozen=True, kw_only=True)
class DocumentBatch:
    """Documents of similar length, each from its BOS to its EOS."""

    byte_ids: Int[Tensor, "B T"]
    """Filled up on the right with EOS."""
    lengths: Int[Tensor, " B"]
    """Ids of each document, BOS and its own EOS included."""
    documents: Int[Tensor, " B"]
    """Number of each document in its split."""


def document_batches(shards: Shards, *, max_ids_per_batch: int) -> Iterator[DocumentBatch]:
    """Return every document of a split once, longest first, so that little is filled up and memory peaks at the start.

    Args:
        shards: the split.
        max_ids_per_batch: limit of B x T; a single document that is longer comes alone.

    Raises:
        ConfigurationError: the limit is not positive.
    """
    check(max_ids_per_batch >= 1, f"max_ids_per_batch: expected at least 1, got {max_ids_per_batch}")
    offsets = shards.document_id_offsets
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")
    first = 0
    while first < len(order):
        longest = int(lengths[order[first]])
        numbers = order[first : first + max(1, max_ids_per_batch // longest)]
        byte_ids = np.full((len(numbers), longest), EOS_ID, np.int64)  # B T
        for row, number in enumerate(numbers):
            byte_ids[row, : lengths[number]] = shards.ids(int(offsets[number]), int(offsets[number + 1]))
        yield DocumentBatch(
            byte_ids=torch.from_numpy(byte_ids),
            lengths=torch.from_numpy(lengths[numbers]),
            documents=torch.from_numpy(numbers),
        )
        first += len(numbers)
