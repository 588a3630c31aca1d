import itertools

import numpy as np
import pytest
import torch

from blt.data import EntropyStore, Shards, document_batches, entropies_path
from blt.training import entropies
from blt.training.entropies import place_of_entropies, store_entropies
from ranks import run_ranks
from tiny_training import made_up_documents, write_recipe


@pytest.fixture
def folder(tmp_path):
    write_recipe(tmp_path, documents=[*made_up_documents(8), "A long one. " * 40], validation=0.0)
    return tmp_path / "data"


def store(model, folder, *, on_progress=lambda done, total: None):
    path = folder / "train" / "entropies-f.f32"
    return store_entropies(model, Shards.open(folder), path, device=torch.device("cpu"), on_progress=on_progress)


def test_every_document_has_the_entropies_that_it_has_alone(tiny_lm, folder, monkeypatch):
    monkeypatch.setattr(entropies, "MAX_IDS_PER_BATCH", 200)
    stored, shards = store(tiny_lm.entropy_model, folder), Shards.open(folder)
    offsets = shards.id_offsets(0, shards.num_documents).tolist()
    for start, stop in itertools.pairwise(offsets):
        alone = tiny_lm.entropy_model.entropies(torch.from_numpy(shards.ids(start, stop))[None])[0]
        np.testing.assert_allclose(stored.read(start, stop), alone.numpy(), atol=1e-5)


def test_a_stop_keeps_what_is_done_and_the_rest_is_computed_later(tiny_lm, folder, monkeypatch):
    monkeypatch.setattr(entropies, "MAX_IDS_PER_BATCH", 200)
    wanted = store(tiny_lm.entropy_model, folder).read(0, 100).copy()
    (folder / "train" / "entropies-f.f32").unlink()

    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        store(tiny_lm.entropy_model, folder, on_progress=stop)
    assert EntropyStore.open(folder / "train" / "entropies-f.f32", num_ids=Shards.open(folder).num_ids) is None

    computed = []
    honest = entropies.entropies_of_rows
    monkeypatch.setattr(entropies, "entropies_of_rows", lambda model, ids: computed.append(1) or honest(model, ids))
    reports = []
    found = store(tiny_lm.entropy_model, folder, on_progress=lambda done, total: reports.append((done, total)))
    assert len(computed) == len(reports) - 1
    assert reports[-1] == (found.num_ids, found.num_ids)
    np.testing.assert_array_equal(found.read(0, 100), wanted)


def test_what_is_stored_is_not_computed_again(tiny_lm, folder, monkeypatch):
    store(tiny_lm.entropy_model, folder)
    monkeypatch.setattr(entropies, "entropies_of_rows", None)
    store(tiny_lm.entropy_model, folder)


def place(folder, tmp_path, shards):
    return place_of_entropies(tmp_path / "run", shards, name="train", split="train", fingerprint="f")


def test_entropies_are_kept_in_the_run_folder_and_those_that_an_older_blt_left_beside_the_shards_are_used(
    folder, tmp_path
):
    shards = Shards.open(folder)
    assert place(folder, tmp_path, shards) == tmp_path / "run" / "entropies" / "train" / "entropies-f.f32"
    beside = entropies_path(folder, split="train", fingerprint="f")
    beside.write_bytes(b"")
    assert place(folder, tmp_path, shards) == beside


def test_entropies_beside_shards_that_have_been_replaced_are_not_taken(folder, tmp_path):
    shards = Shards.open(folder)
    entropies_path(folder, split="train", fingerprint="f").write_bytes(b"")
    index = folder / "index.json"
    index.write_text(index.read_text().replace(shards.checksum, 64 * "0"))
    assert place(folder, tmp_path, shards).is_relative_to(tmp_path / "run")


def test_what_other_models_have_left_is_tidied(tiny_lm, folder):
    stale = [folder / "train" / name for name in ("entropies-g.f32", ".entropies-g.f32.unfinished")]
    for path in stale:
        path.write_bytes(b"old")
    store(tiny_lm.entropy_model, folder)
    assert not any(path.exists() for path in stale)
    assert (folder / "train" / "shard-00000.bin").is_file()


def test_ranks_compute_a_share_each_and_what_another_number_of_ranks_has_done_is_kept(
    tiny_lm, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(entropies, "MAX_IDS_PER_BATCH", 200)
    wanted = store(tiny_lm.entropy_model, folder)
    whole = wanted.read(0, wanted.num_ids).copy()
    path = tmp_path / "shared" / "entropies-f.f32"
    honest = entropies.entropies_of_rows

    def work(world):
        computed, told = [], []
        entropies.entropies_of_rows = lambda model, ids: computed.append(1) or honest(model, ids)
        options = {"device": torch.device("cpu"), "world": world}
        report = {"on_progress": lambda done, total: told.append(done)}
        stop = {"asked_to_stop": lambda: world.rank == 1 and len(told) == 1}
        assert store_entropies(tiny_lm.entropy_model, Shards.open(folder), path, **options, **report, **stop) is None
        assert len(computed) == 2
        found = store_entropies(tiny_lm.entropy_model, Shards.open(folder), path, **options, **report)
        np.testing.assert_array_equal(found.read(0, found.num_ids), whole)
        assert told[-1] == found.num_ids
        (tmp_path / f"computed-{world.rank}").write_text(str(len(computed)))

    run_ranks(2, work, tmp_path / "meeting")
    shares = [int((tmp_path / f"computed-{rank}").read_text()) for rank in range(2)]
    assert sum(shares) == len(list(document_batches(Shards.open(folder), max_ids_per_batch=200)))
    assert abs(shares[0] - shares[1]) <= 1
