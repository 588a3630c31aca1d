"""Held-out bits per byte during a run: documents, each alone, as generation sees them (protocol `documents`)."""

import math
from dataclasses import replace

import numpy as np
import torch

from blt.codec import BYTE_OFFSET
from blt.data import Batch, EntropyStore, Shards, document_batches
from blt.training.objectives import Objective

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
            batch = documents if entropies is None else _with_entropies(documents, self._sample, entropies)
            batch = batch.first(MAX_IDS_PER_BATCH)
            num_bytes += int((batch.targets >= BYTE_OFFSET).sum())
            nats += objective.loss_sum(batch.to(device)).item()
        return nats / math.log(2.0) / max(1, num_bytes)


def _with_entropies(batch: Batch, shards: Shards, entropies: EntropyStore) -> Batch:
    """Look the entropies of documents up: the sample's stream begins as the whole split's does."""
    stored = torch.zeros(batch.byte_ids.shape)
    for row, (number, length) in enumerate(zip(batch.numbers.tolist(), batch.lengths.tolist(), strict=True)):
        start = int(shards.document_id_offsets[number])
        stored[row, :length] = torch.from_numpy(np.array(entropies.read(start, start + length)))
    return replace(batch, entropies=stored)
