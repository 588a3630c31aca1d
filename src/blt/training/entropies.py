"""Entropies of all documents, computed once, whole document by whole document, as generation computes them."""

from collections.abc import Callable
from pathlib import Path

import torch

from blt.data import EntropyStore, Shards, document_batches
from blt.entropy import EntropyModel
from blt.evaluation.entropies import entropies_of_rows

MAX_IDS_PER_BATCH = 16384


def store_entropies(
    model: EntropyModel,
    folder: str | Path,
    *,
    split: str,
    fingerprint: str,
    device: torch.device,
    on_progress: Callable[[int, int], None],
) -> EntropyStore:
    """Give the stored entropies of a split; computes what is missing, going on after an interruption.

    Args:
        model: the frozen entropy model.
        folder: written by `blt prepare`.
        split: `train` or `validation`.
        fingerprint: names the model's weights.
        device: where to compute.
        on_progress: told the ids done and the ids in all; if it raises, what is done is kept.
    """
    found = EntropyStore.open(folder, split=split, fingerprint=fingerprint)
    if found is not None:
        return found
    shards = Shards.open(folder, split=split)
    offsets = shards.document_id_offsets
    model.eval()
    done = 0
    with EntropyStore.create(folder, split=split, fingerprint=fingerprint) as writer:
        for batch in document_batches(shards, max_ids_per_batch=MAX_IDS_PER_BATCH):
            starts = [int(offsets[number]) for number in batch.documents.tolist()]
            lengths = batch.lengths.tolist()
            if not all(writer.is_done(start, start + n) for start, n in zip(starts, lengths, strict=True)):
                entropies = entropies_of_rows(model, batch.byte_ids.to(device)).float().cpu().numpy()
                for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
                    writer.write(start, entropies[row, :length])
            done += sum(lengths)
            on_progress(done, shards.num_ids)
        return writer.finish()
