"""Reading and writing on a GPU: what comes out is what the CPU computes, and a byte costs few waits."""

import dataclasses

import numpy as np
import pytest
import torch

import blt.lm.static_decoding
import blt.model.incremental
from blt.codec import encode
from blt.evaluation import evaluate
from blt.generation import DraftConfig, Drafter, Engine, GenerationConfig, Request
from blt.inspection import verify
from blt.inspection.sample import Sample
from blt.lm import DecodingSession, StaticConfig
from blt.patching import SpaceRule
from cuda_stand_in import CUDA

pytestmark = pytest.mark.gpu
STATIC = StaticConfig(num_rows=2, max_patches=16, max_patch_bytes=16, backend=None)
WAYS = {
    "steps": {},
    "static steps": {"static": STATIC},
    "drafts of the decoder": {"drafter": DraftConfig(max_draft=3)},
    "drafts of the entropy model": {"drafter": DraftConfig(by="entropy", max_draft=3, min_probability=0.0)},
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def requests():
    config = {"max_new_bytes": 8, "valid_utf8": False, "temperature": 1.0}
    return [
        Request(b"Tom had a", GenerationConfig(**config, seed=1)),
        Request("Zoë".encode(), GenerationConfig(**config | {"temperature": 0})),
        Request(b"", GenerationConfig(**config, seed=2, regex="[a-f]{2} [0-9]{3}")),
        Request(b"ball", GenerationConfig(**config, seed=3, repetition_penalty=1.3, logprobs=2)),
    ]


def written(lm, *, static=None, drafter=None):
    """Continue requests, of which each joins some steps after the one before; return what they wrote."""
    engine = Engine(lm, static=static, drafter=None if drafter is None else Drafter(drafter))
    joining = requests()
    for request in joining:
        engine.add([request])
        engine.step()
    while engine.step():
        pass
    return [bytes(request.new_bytes) for request in joining]


@every_way
def test_the_engine_writes_the_same_with_joins_grammars_and_drafts(lm, device, way):
    pytest.importorskip("llguidance")
    expected = written(lm)
    assert all(expected)
    assert written(lm.to(device), **way) == expected


@pytest.mark.parametrize(("static", "waits"), [(None, 2), (STATIC, 1)])
def test_a_byte_of_all_rows_together_costs_few_waits(lm, gpu, static, waits):
    engine = Engine(lm.to("cuda"), static=static)
    engine.add([Request(text, GenerationConfig(max_new_bytes=20, temperature=0)) for text in (b"Tom", b"ball")])
    engine.step()
    for _ in range(5):
        gpu.reset()
        engine.step()
        assert gpu.counts()["waits"] == waits
    if static is not None:
        assert gpu.counts() == {"waits": 1, "to_device": 1, "to_host": 1}


def test_many_bytes_at_once_and_a_single_one_are_read_together(lm, device):
    """Of 5 bytes, of which at most 4 are read at once, the last is a static step, whose logits are on the host."""
    ids = encode("ball.")[None]
    plain = DecodingSession(lm, max_rollback=4)
    expected = plain.read(ids, plain.start(1)), plain.ends
    session = DecodingSession(lm.to(device), max_rollback=4, static=STATIC)
    logits = session.read(ids.to(device), session.start(1))
    np.testing.assert_allclose(logits.cpu().numpy(), expected[0].numpy(), atol=1e-4)
    assert session.ends.cpu().tolist() == expected[1].tolist()


def test_scores_patches_and_evaluation_are_those_of_the_cpu(lm, device):
    documents = [b"Tom had a red ball.", "Zoë ate 3 crêpes.".encode(), b"x" * 70]
    expected = [evaluate(lm, documents, protocol=name, bootstrap=0).bits_per_byte for name in ("documents", "windows")]
    score, patches = lm.score("Tom had a red ball."), lm.patch("Tom had a red ball.")
    lm.to(device)
    found = [evaluate(lm, documents, protocol=name, bootstrap=0).bits_per_byte for name in ("documents", "windows")]
    assert found == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(lm.score("Tom had a red ball.").bits_by_byte, score.bits_by_byte, rtol=1e-4)
    assert [part.data for part in lm.patch("Tom had a red ball.")] == [part.data for part in patches]


def test_every_law_holds_there(lm, device, monkeypatch):
    lm.patch_rule = SpaceRule()
    positions, draw = Sample.positions, Sample.draw

    def short(lm, **options):  # every operation takes long here
        sample = draw(lm, **options)
        documents = tuple(ids[:7] for ids in sample.documents)
        return dataclasses.replace(
            sample, row=sample.row[:, :24], random_ends=sample.random_ends[:, :24], documents=documents
        )

    monkeypatch.setattr(Sample, "draw", short)
    monkeypatch.setattr(Sample, "positions", lambda self, count, *, ends: positions(self, 1, ends=ends)[-1:])
    assert [report.law for report in verify(lm.to(device), text=b"Tom had a ball.") if not report.held] == []


def plant_hashes_on_the_host(monkeypatch):
    monkeypatch.setattr(blt.model.incremental.BLTState, "_on_device", lambda _, numbers: torch.from_numpy(numbers))


def plant_bytes_on_the_host(monkeypatch):
    monkeypatch.setattr(blt.lm.static_decoding, "to_device", lambda tensor, device: tensor)


@pytest.mark.parametrize(
    ("plant", "way"), [(plant_hashes_on_the_host, {}), (plant_bytes_on_the_host, WAYS["static steps"])]
)
def test_a_tensor_left_on_the_host_is_noticed(lm, gpu, monkeypatch, plant, way):
    plant(monkeypatch)
    assert lm.to("cuda").device == CUDA
    with pytest.raises(RuntimeError, match="same device"):
        written(lm, **way)
