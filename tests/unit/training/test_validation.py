import itertools
import math

import numpy as np
import pytest
import torch

from blt.data import EntropyStore, Shards
from blt.training import validation
from blt.training.objectives import BLTObjective, EntropyObjective
from blt.training.validation import HeldOut

DOCUMENTS = [b"Tom had a red ball.", b"x", "Émile était là.".encode(), b"They ran home, and then they ate."]


def objective_of(lm):
    return BLTObjective(lm.blt, rule=lm.patch_rule, slots_multiple=1)


def stored_entropies(lm, shards):
    """As the second stage stores them: document by document."""
    rows = [torch.from_numpy(shards.ids(*span)) for span in _spans(shards)]
    return EntropyStore(np.concatenate([lm.entropy_model.entropies(row[None])[0].numpy() for row in rows]))


def _spans(shards):
    offsets = shards.id_offsets(0, shards.num_documents).tolist()
    return list(itertools.pairwise(offsets))


def test_the_figure_is_that_of_scoring_each_document_alone(tiny_lm):
    shards = Shards.from_documents(DOCUMENTS)
    found = HeldOut(shards, num_documents=9).bits_per_byte(
        objective_of(tiny_lm), entropies=stored_entropies(tiny_lm, shards)
    )
    bits = sum(tiny_lm.score(document).bits for document in DOCUMENTS)
    assert found == pytest.approx(bits / sum(map(len, DOCUMENTS)), rel=1e-5)


def test_only_the_first_documents_are_read(tiny_lm):
    shards = Shards.from_documents(DOCUMENTS)
    found = HeldOut(shards, num_documents=1).bits_per_byte(
        objective_of(tiny_lm), entropies=stored_entropies(tiny_lm, shards)
    )
    assert found == pytest.approx(tiny_lm.score(DOCUMENTS[0]).bits_per_byte, rel=1e-5)


def test_of_a_very_long_document_only_the_beginning_is_read(tiny_lm, monkeypatch):
    monkeypatch.setattr(validation, "MAX_IDS_PER_BATCH", 11)
    text = DOCUMENTS[3]
    found = HeldOut(Shards.from_documents([text]), num_documents=1).bits_per_byte(
        EntropyObjective(tiny_lm.entropy_model), entropies=None
    )
    byte_ids = torch.from_numpy(Shards.from_documents([text]).ids(0, 12))[None]
    nats = torch.nn.functional.cross_entropy(
        tiny_lm.entropy_model(byte_ids[:, :11])[0], byte_ids[0, 1:], reduction="sum"
    )
    assert found == pytest.approx(float(nats) / math.log(2) / 11, rel=1e-5)
