"""Entropies of all documents, computed once, whole document by whole document, as generation computes them."""

from collections.abc import Callable
from pathlib import Path

import torch

from blt.data import EntropyStore, Shards, document_batches, entropies_path
from blt.data.document_batches import MAX_IDS_PER_BATCH
from blt.data.entropies import unfinished_path
from blt.data.index import read_index
from blt.entropy import EntropyModel
from blt.errors import DataError
from blt.evaluation.entropies import entropies_of_rows


def place_of_entropies(run_folder: Path, shards: Shards, *, name: str, split: str, fingerprint: str) -> Path:
    """Return the file of a split's entropies: in the run folder, or beside the shards if an older blt left it there.

    Args:
        run_folder: the run's.
        shards: the split.
        name: of the split in the run: `train` or `held_out`.
        split: its name in the prepared folder.
        fingerprint: names the weights of the entropy model.
    """
    if shards.folder is not None:
        beside = entropies_path(shards.folder, split=split, fingerprint=fingerprint)
        if beside.is_file() and _is_of(shards, split):
            return beside
    return entropies_path(run_folder / "entropies", split=name, fingerprint=fingerprint)


def store_entropies(
    model: EntropyModel,
    shards: Shards,
    path: Path,
    *,
    device: torch.device,
    on_progress: Callable[[int, int], None],
) -> EntropyStore:
    """Return the stored entropies of a split; computes what is missing, going on after an interruption.

    What other models have left in the same folder is deleted first.

    Args:
        model: the frozen entropy model.
        shards: the split.
        path: where they are, or will be.
        device: where to compute.
        on_progress: told the ids done and the ids in all; if it raises, what is done is kept.
    """
    found = EntropyStore.open(path, num_ids=shards.num_ids)
    if found is not None:
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in set(path.parent.glob("*entropies-*.f32*")) - {unfinished_path(path)}:
        stale.unlink()
    offsets = shards.document_id_offsets
    model.eval()
    done = 0
    with EntropyStore.create(path, num_ids=shards.num_ids) as writer:
        for batch in document_batches(shards, max_ids_per_batch=MAX_IDS_PER_BATCH):
            starts = [int(offsets[number]) for number in batch.numbers.tolist()]
            lengths = batch.lengths.tolist()
            if not all(writer.is_done(start, start + n) for start, n in zip(starts, lengths, strict=True)):
                entropies = entropies_of_rows(model, batch.byte_ids.to(device)).float().cpu().numpy()
                for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
                    writer.write(start, entropies[row, :length])
            done += sum(lengths)
            on_progress(done, shards.num_ids)
        return writer.finish()


def _is_of(shards: Shards, split: str) -> bool:
    """Whether the prepared folder still holds the documents that were opened, not others that have replaced them."""
    assert shards.folder is not None
    try:
        return bool(read_index(shards.folder)["splits"][split]["checksum"] == shards.checksum)
    except (DataError, KeyError):
        return False
