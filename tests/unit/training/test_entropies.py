import itertools

import numpy as np
import pytest
import torch

from blt.data import EntropyStore, Shards
from blt.training import entropies
from blt.training.entropies import store_entropies
from tiny_training import made_up_documents, write_recipe


@pytest.fixture
def folder(tmp_path):
    write_recipe(tmp_path, documents=[*made_up_documents(8), "A long one. " * 40], validation=0.0)
    return tmp_path / "data"


def store(model, folder, *, on_progress=lambda done, total: None):
    return store_entropies(
        model, folder, split="train", fingerprint="f", device=torch.device("cpu"), on_progress=on_progress
    )


def test_every_document_has_the_entropies_that_it_has_alone(tiny_lm, folder, monkeypatch):
    monkeypatch.setattr(entropies, "MAX_IDS_PER_BATCH", 200)
    stored, shards = store(tiny_lm.entropy_model, folder), Shards.open(folder)
    offsets = shards.document_id_offsets.tolist()
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
    assert EntropyStore.open(folder, split="train", fingerprint="f") is None

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
