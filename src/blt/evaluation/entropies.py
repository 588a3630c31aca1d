"""Entropies of whole documents, however long, in memory that does not grow with them."""

import numpy as np
import torch

from blt.data import EntropyStore, Shards, document_batches
from blt.data.document_batches import MAX_IDS_PER_BATCH
from blt.entropy import EntropyModel
from blt.shapes import Float, Int, Tensor


def compute_entropies(model: EntropyModel, shards: Shards) -> EntropyStore:
    """Compute the entropy after every id of a split, each document from its own BOS, and keep them in memory.

    Args:
        model: the entropy model.
        shards: the documents.
    """
    device = model.bytes.weight.device
    values = np.zeros(shards.num_ids, np.float32)
    for batch in document_batches(shards, max_ids_per_batch=MAX_IDS_PER_BATCH):
        entropies = entropies_of_rows(model, batch.byte_ids.to(device)).float().cpu().numpy()
        for row, length, number in zip(entropies, batch.lengths.tolist(), batch.numbers.tolist(), strict=True):
            start = shards.id_offset(number)
            values[start : start + length] = row[:length]
    return EntropyStore(values)


@torch.inference_mode()
def entropies_of_rows(model: EntropyModel, byte_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Return the entropies of rows, in pieces where they are long.

    Each layer looks back window − 1 ids, so a piece is exact with a left context of num_layers × (window − 1) ids.
    """
    batch, length = byte_ids.shape
    step = max(1, MAX_IDS_PER_BATCH // batch)
    lead_in = model.config.num_layers * (model.config.window - 1)
    pieces = []
    for start in range(0, length, step):
        first = max(0, start - lead_in)
        pieces.append(model.entropies(byte_ids[:, first : start + step])[:, start - first :])
    return torch.cat(pieces, dim=1)
