"""Whole documents in batches, for evaluation and for computing entropies."""

from collections.abc import Iterator

import numpy as np
import torch

from blt.codec import EOS_ID
from blt.configuration import check
from blt.data.batch import Batch
from blt.data.shards import Shards

MAX_IDS_PER_BATCH = 2**14
"""Most ids of a batch of documents, so that logits and entropies of more never exist at a time."""


def document_batches(shards: Shards, *, max_ids_per_batch: int, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
    """Return every document of a split once, longest first: little is padded, and memory peaks at the start.

    A row is a whole document, from its BOS to its EOS.

    Args:
        shards: the split.
        max_ids_per_batch: limit of B x T; a single document that is longer comes alone.
        rank: which of the batches to return: every `world_size`-th, from this one on.
        world_size: number of ranks; together they get what one rank would.

    Raises:
        ConfigurationError: the limit is not positive.
    """
    check(max_ids_per_batch >= 1, f"max_ids_per_batch: expected at least 1, got {max_ids_per_batch}")
    offsets = shards.document_id_offsets
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")
    first = index = 0
    while first < len(order):
        longest = int(lengths[order[first]])
        numbers = order[first : first + max(1, max_ids_per_batch // longest)]
        first, index = first + len(numbers), index + 1
        if (index - 1) % world_size != rank:
            continue
        ids = np.full((len(numbers), longest + 1), EOS_ID, np.int64)  # B T+1: all of a document is read
        for row, number in enumerate(numbers):
            ids[row, : lengths[number]] = shards.ids(int(offsets[number]), int(offsets[number + 1]))
        yield Batch.of(
            torch.from_numpy(ids), lengths=torch.from_numpy(lengths[numbers]), numbers=torch.from_numpy(numbers)
        )
