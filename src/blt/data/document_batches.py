"""Whole documents in batches, for evaluation and for computing entropies."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from blt.codec import EOS_ID
from blt.configuration import check
from blt.data.batch import Batch
from blt.data.shards import Shards

MAX_SORTED = 2**16
"""Documents that are sorted by length at a time, so that memory does not grow with a corpus."""
MAX_IDS_PER_BATCH = 2**14
"""Most ids of a batch of documents, so that logits and entropies of more never exist at a time."""


def document_batches(shards: Shards, *, max_ids_per_batch: int, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
    """Return every document of a split once, longest first, so that little is padded and memory peaks at the start.

    Of more than `MAX_SORTED` documents, that many at a time are sorted.

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
    index = 0
    for first in range(0, shards.num_documents, MAX_SORTED):
        offsets = shards.id_offsets(first, min(first + MAX_SORTED, shards.num_documents))
        for numbers in _alike_in_length(np.diff(offsets), max_ids_per_batch=max_ids_per_batch):
            if index % world_size == rank:
                yield _batch(shards, offsets[numbers], offsets[numbers + 1], numbers=first + numbers)
            index += 1


def _alike_in_length(lengths: NDArray[np.int64], *, max_ids_per_batch: int) -> Iterator[NDArray[np.int64]]:
    """Yield the documents of each batch, longest first."""
    order = np.argsort(-lengths, kind="stable")
    first = 0
    while first < len(order):
        count = max(1, max_ids_per_batch // int(lengths[order[first]]))
        yield order[first : first + count]
        first += count


def _batch(shards: Shards, starts: NDArray[np.int64], stops: NDArray[np.int64], *, numbers: NDArray[np.int64]) -> Batch:
    lengths = stops - starts
    ids = np.full((len(numbers), int(lengths.max()) + 1), EOS_ID, np.int64)  # B T+1: all of a document is read
    for row, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        ids[row, : stop - start] = shards.ids(start, stop)
    return Batch.of(torch.from_numpy(ids), lengths=torch.from_numpy(lengths), numbers=torch.from_numpy(numbers))
