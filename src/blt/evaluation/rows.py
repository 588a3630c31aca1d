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
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from blt.codec import BOS_ID, EOS_ID
from blt.data import NOT_PREDICTED, Shards, document_batches
from blt.entropy import EntropyModel
from blt.evaluation.entropies import MAX_IDS_PER_BATCH, compute_entropies, entropies_of_rows
from blt.shapes import Bool, Float, Int, Tensor

WINDOW = 512
"""Ids that a row of the protocol `windows` reads."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Ids to read and ids to predict. A unit is a document or a window: what the bootstrap draws."""

    byte_ids: Int[Tensor, "B T"]
    """Filled up on the right with EOS."""
    targets: Int[Tensor, "B T"]
    """The next id; `NOT_PREDICTED` where that is a BOS or where the row is filled up."""
    is_read: Bool[Tensor, "B T"]
    """False where the row is filled up."""
    entropies: Float[Tensor, "B T"] | None
    """In nats, of the next id; None for a rule without entropies."""
    units: Int[Tensor, " B"]
    """Number of each row's document, or window."""


def document_rows(shards: Shards, *, entropy_model: EntropyModel | None, device: torch.device) -> Iterator[Rows]:
    """Return the rows of the protocol `documents`, longest first."""
    for batch in document_batches(shards, max_ids_per_batch=MAX_IDS_PER_BATCH):
        byte_ids, lengths = batch.byte_ids.to(device), batch.lengths.to(device)
        entropies = None if entropy_model is None else entropies_of_rows(entropy_model, byte_ids)[:, :-1]
        yield _rows(byte_ids[:, :-1], byte_ids[:, 1:], num_read=lengths - 1, entropies=entropies, units=batch.documents)


def window_rows(shards: Shards, *, entropy_model: EntropyModel | None, device: torch.device) -> Iterator[Rows]:
    """Return the rows of the protocol `windows`, in order."""
    store = None if entropy_model is None else compute_entropies(entropy_model, shards)
    rows_per_batch = MAX_IDS_PER_BATCH // WINDOW
    total = num_windows(shards)
    for first in range(0, total, rows_per_batch):
        units = torch.arange(first, min(first + rows_per_batch, total))
        start, stop = first * WINDOW, min((int(units[-1]) + 1) * WINDOW, shards.num_ids - 1)
        num_read = (stop - units * WINDOW).clamp(max=WINDOW)
        byte_ids, following = (_cut(shards.ids(start + shift, stop + shift)).to(device) for shift in (0, 1))
        entropies = None if store is None else _cut(store.read(start, stop)).to(device)
        yield _rows(byte_ids, following, num_read=num_read.to(device), entropies=entropies, units=units)


def num_windows(shards: Shards) -> int:
    """Count the windows; the last id of the stream is only ever predicted."""
    return -(-(shards.num_ids - 1) // WINDOW)


def _rows(
    byte_ids: Int[Tensor, "B T"],
    following: Int[Tensor, "B T"],
    *,
    num_read: Int[Tensor, " B"],
    entropies: Float[Tensor, "B T"] | None,
    units: Int[Tensor, " B"],
) -> Rows:
    """Mark what is filled up, and what is not predicted."""
    is_read = torch.arange(byte_ids.shape[1], device=byte_ids.device) < num_read[:, None]
    targets = torch.where(is_read & (following != BOS_ID), following, NOT_PREDICTED)
    return Rows(byte_ids=byte_ids, targets=targets, is_read=is_read, entropies=entropies, units=units)


def _cut(stream: NDArray[Any]) -> Tensor:
    """Cut a slice of the stream into windows; the last one is filled up, ids with EOS."""
    return torch.from_numpy(np.pad(stream, (0, -len(stream) % WINDOW), constant_values=EOS_ID)).view(-1, WINDOW)
