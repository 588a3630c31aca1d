"""The two protocols: how documents become rows of ids, and which ids are predicted.

`documents`: each document is a row of its own, from BOS to EOS, whole, however long.

`windows`: all documents are laid end to end, each as BOS, its bytes, EOS, and that stream is cut every 512 ids. A row
reads the 512 ids of its window, with nothing before them, and predicts ids 2 to 512 of that window and the first of
the next: the same inputs and targets that a training run with windows of 512 meets. So every id of the stream but the
very first (a BOS) is a target exactly once; a BOS is never predicted, since nothing tells which document comes next.
Patches come from entropies of whole documents, cut with the window.

Under both protocols every byte and every EOS is therefore predicted exactly once, and the figures differ only in how
much of a document the model has read before.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from blt.codec import EOS_ID
from blt.data import Batch, Shards, document_batches
from blt.data.document_batches import MAX_IDS_PER_BATCH
from blt.entropy import EntropyModel
from blt.evaluation.entropies import compute_entropies, entropies_of_rows
from blt.shapes import Tensor

WINDOW = 512
"""Ids that a row of the protocol `windows` reads."""


def document_rows(shards: Shards, *, entropy_model: EntropyModel | None, device: torch.device) -> Iterator[Batch]:
    """Return the rows of the protocol `documents`, longest first. EOS is predicted, and not read."""
    for documents in document_batches(shards, max_ids_per_batch=MAX_IDS_PER_BATCH):
        batch = documents.to(device)
        if entropy_model is not None:
            batch = replace(batch, entropies=entropies_of_rows(entropy_model, batch.byte_ids))
        yield replace(batch.first(batch.byte_ids.shape[1] - 1), lengths=batch.lengths - 1)


def window_rows(shards: Shards, *, entropy_model: EntropyModel | None, device: torch.device) -> Iterator[Batch]:
    """Return the rows of the protocol `windows`, in order."""
    store = None if entropy_model is None else compute_entropies(entropy_model, shards)
    rows_per_batch = MAX_IDS_PER_BATCH // WINDOW
    total = num_windows(shards)
    for first in range(0, total, rows_per_batch):
        numbers = torch.arange(first, min(first + rows_per_batch, total), device="cpu")
        start, stop = first * WINDOW, min((int(numbers[-1]) + 1) * WINDOW, shards.num_ids - 1)
        num_read = (stop - numbers * WINDOW).clamp(max=WINDOW)
        ids = _cut(shards.ids(start, stop + 1), overlap=1)  # the last id of a row is the first of the next
        entropies = None if store is None else _cut(store.read(start, stop))
        batch = Batch.of(ids, lengths=num_read + 1, numbers=numbers, entropies=entropies)
        yield replace(batch, lengths=num_read).to(device)


def num_windows(shards: Shards) -> int:
    """Count the windows; the last id of the stream is only ever predicted."""
    return -(-(shards.num_ids - 1) // WINDOW)


def _cut(stream: NDArray[Any], *, overlap: int = 0) -> Tensor:
    """Cut a slice of the stream into windows, each with the first ids of the next; padded, ids with EOS."""
    padding = (overlap - len(stream)) % WINDOW
    padded = torch.from_numpy(np.pad(stream, (0, padding), constant_values=EOS_ID))
    return padded.unfold(0, WINDOW + overlap, WINDOW)
