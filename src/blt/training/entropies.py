"""Entropies of all documents, computed once, whole document by whole document, as generation computes them."""

from collections.abc import Callable
from pathlib import Path

import torch

from blt.data import Batch, EntropyStore, Shards, document_batches, entropies_path
from blt.data.document_batches import MAX_IDS_PER_BATCH
from blt.data.entropies import EntropyWriter, unfinished_path
from blt.data.index import read_index
from blt.distributed import World
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
    asked_to_stop: Callable[[], bool] = lambda: False,
    world: World | None = None,
) -> EntropyStore | None:
    """Return the stored entropies of a split; the ranks compute what is missing, going on after an interruption.

    What other models have left in the same folder is deleted first. Each rank computes every `world.size`-th batch of
    documents, whatever the number of ranks of an earlier attempt was; after each, all tell how far they are.

    Args:
        model: the frozen entropy model.
        shards: the split.
        path: where they are, or will be; all ranks see the same file.
        device: where to compute.
        on_progress: told the ids done and the ids in all; if it raises, what is done is kept.
        asked_to_stop: whether to stop where it is; where one rank says so, all do.
        world: this process among all.

    Returns:
        The entropies; None if a stop was asked for.
    """
    world = world or World()
    found = EntropyStore.open(path, num_ids=shards.num_ids)
    if world.sum(found is not None) == world.size:
        return found
    if world.is_main:
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in set(path.parent.glob("*entropies-*.f32*")) - {unfinished_path(path)}:
            stale.unlink()
        EntropyStore.create(path, num_ids=shards.num_ids).close()
    world.wait()
    model.eval()
    batches = document_batches(shards, max_ids_per_batch=MAX_IDS_PER_BATCH, rank=world.rank, world_size=world.size)
    done, going_on = 0.0, 1.0
    with EntropyStore.create(path, num_ids=shards.num_ids) as writer:
        while going_on:
            batch = next(batches, None)
            ids = 0 if batch is None else _store_batch(model, shards, batch, writer, device=device)
            going_on, ids_of_all, stopping = world.sums(batch is not None, ids, asked_to_stop())
            done += ids_of_all
            if going_on:
                on_progress(int(done), shards.num_ids)
            if stopping:
                return None
    world.wait()  # what every rank has written is in the file: leaving the block above sees to it
    if world.is_main:
        found = writer.finish()
    world.wait()
    return found or EntropyStore.open(path, num_ids=shards.num_ids)


def _store_batch(
    model: EntropyModel, shards: Shards, batch: Batch, writer: EntropyWriter, *, device: torch.device
) -> int:
    """Compute and write the entropies of a batch of documents unless they are there; returns its number of ids."""
    starts = [shards.id_offset(number) for number in batch.numbers.tolist()]
    lengths = batch.lengths.tolist()
    if not all(writer.is_done(start, start + n) for start, n in zip(starts, lengths, strict=True)):
        entropies = entropies_of_rows(model, batch.byte_ids.to(device)).float().cpu().numpy()
        for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            writer.write(start, entropies[row, :length])
    return sum(lengths)


def _is_of(shards: Shards, split: str) -> bool:
    """Whether the prepared folder still holds the documents that were opened, not others that have replaced them."""
    assert shards.folder is not None
    try:
        return bool(read_index(shards.folder)["splits"][split]["checksum"] == shards.checksum)
    except (DataError, KeyError):
        return False
