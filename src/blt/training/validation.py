"""Held-out bits per byte during a run: whole documents, each alone, as generation sees them (protocol `documents`)."""

import math

import numpy as np
import torch

from blt.data import NOT_PREDICTED, Batch, DocumentBatch, EntropyStore, Shards, document_batches
from blt.training.objectives import Objective

MAX_IDS_PER_BATCH = 16384


class HeldOut:
    """The first so many held-out documents, with their entropies once there are any."""

    def __init__(self, shards: Shards, *, num_documents: int) -> None:
        count = min(num_documents, shards.num_documents)
        self._sample = Shards.from_documents([shards.document(number).tobytes() for number in range(count)])

    @torch.no_grad()
    def bits_per_byte(self, objective: Objective, *, device: torch.device, entropies: EntropyStore | None) -> float:
        """Measure the objective's module as it is now: bits of all bytes and EOS, per byte of text."""
        nats = 0.0
        for documents in document_batches(self._sample, max_ids_per_batch=MAX_IDS_PER_BATCH):
            batch = _as_batch(documents, self._sample, entropies)
            moved = None if batch.entropies is None else batch.entropies.to(device)
            nats += objective.nats(
                Batch(byte_ids=batch.byte_ids.to(device), targets=batch.targets.to(device), entropies=moved)
            ).item()
        return nats / math.log(2.0) / max(1, self._sample.num_bytes)


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
    return Batch(byte_ids=byte_ids, targets=targets, entropies=stored)
