"""Held-out bits per byte during a run: documents, each alone, as generation sees them (protocol `documents`)."""

import math

import numpy as np
import torch

from blt.codec import BYTE_OFFSET
from blt.data import NOT_PREDICTED, Batch, DocumentBatch, EntropyStore, Shards, document_batches
from blt.training.objectives import Objective, to_device

MAX_IDS_PER_BATCH = 16384


class HeldOut:
    """The first so many held-out documents, with their entropies once there are any.

    Of a very long document only the first `MAX_IDS_PER_BATCH` ids are read, so that a validation stays short.
    """

    def __init__(self, shards: Shards, *, num_documents: int) -> None:
        count = min(num_documents, shards.num_documents)
        self._sample = Shards.from_documents([shards.document(number).tobytes() for number in range(count)])

    @torch.no_grad()
    def bits_per_byte(self, objective: Objective, *, device: torch.device, entropies: EntropyStore | None) -> float:
        """Measure the objective's module as it is now: bits of all bytes and EOS, per byte of text."""
        nats, num_bytes = 0.0, 0
        for documents in document_batches(self._sample, max_ids_per_batch=MAX_IDS_PER_BATCH):
            batch = _as_batch(documents, self._sample, entropies)
            num_bytes += int((batch.targets >= BYTE_OFFSET).sum())
            nats += objective.loss_sum(to_device(batch, device)).item()
        return nats / math.log(2.0) / max(1, num_bytes)


def _as_batch(documents: DocumentBatch, shards: Shards, entropies: EntropyStore | None) -> Batch:
    """Shift the targets by one, and look the entropies up: the sample's stream begins as the whole split's does."""
    byte_ids, lengths = documents.byte_ids, documents.lengths
    targets = torch.full_like(byte_ids, NOT_PREDICTED)
    targets[:, :-1] = byte_ids[:, 1:]
    position = torch.arange(byte_ids.shape[1])
    targets[position >= lengths[:, None] - 1] = NOT_PREDICTED
    stored = None
    if entropies is not None:
        stored = torch.zeros(byte_ids.shape)
        for row, (number, length) in enumerate(zip(documents.documents.tolist(), lengths.tolist(), strict=True)):
            start = int(shards.document_id_offsets[number])
            stored[row, :length] = torch.from_numpy(np.array(entropies.read(start, start + length)))
        stored = stored[:, :MAX_IDS_PER_BATCH]
    return Batch(byte_ids=byte_ids[:, :MAX_IDS_PER_BATCH], targets=targets[:, :MAX_IDS_PER_BATCH], entropies=stored)
