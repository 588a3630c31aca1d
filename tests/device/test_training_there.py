"""Training on a GPU: losses and weights are those of the CPU, and the host hardly waits."""

import os
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from rich.console import Console

import blt.model.blt
import blt.ops.muon
import blt.ops.rotary
import blt.training.validation
from blt.data import EntropyStore, Shards, Windows
from blt.distributed import World, choose_device
from blt.entropy import EntropyModel
from blt.errors import TrainingError
from blt.model import BLT
from blt.ops import only_references
from blt.patching import EntropyRule
from blt.training import Stopped, run_recipe
from blt.training.checkpoints import Checkpoints
from blt.training.loop import Trainer
from blt.training.monitor import Monitor, read_metrics
from blt.training.objectives import BLTObjective, EntropyObjective
from blt.training.optimizers import AdamWConfig, MuonConfig
from blt.training.recipe import LoopConfig
from cuda_stand_in import CudaStandIn
from tiny_config import TINY_CONFIG
from tiny_training import made_up_documents, tiny_recipe

pytestmark = pytest.mark.gpu
OPTIMIZERS = {"adamw": AdamWConfig(learning_rate=3e-3), "muon": MuonConfig(weight_decay=0.1)}
KINDS = [("adamw", False), ("muon", False), ("adamw", True), ("muon", True)]
"""By optimiser, and whether n-gram tables have sparse gradients, which `RowAdam` moves."""
every_kind = pytest.mark.parametrize(("optimizer", "sparse"), KINDS)


@pytest.fixture(autouse=True)
def _same_precision_everywhere(monkeypatch):
    monkeypatch.setattr(blt.ops.muon, "fast_matmul_dtype", lambda device: torch.float32)


def new_trainer(folder, *, device, stage="blt", optimizer="adamw", sparse=False, **fields):
    torch.manual_seed(0)
    shards = Shards.from_documents([text.encode() for text in made_up_documents(20)])
    store = None
    if stage == "blt":
        module = BLT(TINY_CONFIG.blt)
        module.hash_embedding.sparse_gradients = sparse
        if os.environ.get("BLT_DEVICE") is None:  # another device draws other numbers
            module.set_dropout(layers=0.1, ngrams=0.1)
        objective = BLTObjective(module.to(device), rule=EntropyRule(threshold=1.0), slots_multiple=8)
        store = EntropyStore(np.random.default_rng(0).uniform(0, 2, shards.num_ids).astype(np.float32))
    else:
        objective = EntropyObjective(EntropyModel(TINY_CONFIG.entropy_model).to(device))
    loop = LoopConfig(
        **{"num_steps": 6, "batch_size": 4, "sequence_length": 24, "log_every": 3, "precision": "float32"}
        | {"optimizer": OPTIMIZERS[optimizer]}
        | fields
    )
    return Trainer(
        objective=objective,
        windows=Windows(shards, sequence_length=24, seed=0, entropies=store),
        config=loop,
        validate=lambda step: 9.0 - step,
        checkpoints=Checkpoints(folder / "checkpoints"),
        monitor=Monitor(folder, stage=stage, config=loop, console=Console(quiet=True)),
        device=torch.device(device),
        world=World(),
        asked_to_stop=lambda: False,
    )


def trained_here(folder, **options):
    """Train on the CPU, by PyTorch's own operations."""
    with only_references():
        trainer = new_trainer(folder, device="cpu", **options)
        trainer.run()
    return trainer


def figures(folder):
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "gradient_norm" in row]
    return [(row["step"], row["bytes"], row["bits_per_byte"], row["gradient_norm"]) for row in rows]


def assert_same_weights(found, expected, *, bitwise_alike):
    """Compare weights; where another device rounds, single ones may part, as AdamW divides by the gradient's size."""
    for (name, weight), other in zip(found.named_parameters(), expected.parameters(), strict=True):
        if bitwise_alike:
            torch.testing.assert_close(weight.detach().cpu(), other.detach(), rtol=1e-3, atol=1e-5, msg=name)
        else:
            assert (weight.detach().cpu() - other.detach()).abs().mean() <= 1e-4, name


@every_kind
def test_a_run_gives_the_weights_and_losses_of_the_cpu_and_waits_for_rows_of_metrics_alone(
    tmp_path, device, stand_in, optimizer, sparse
):
    options = {"optimizer": optimizer, "sparse": sparse, "num_steps": 4, "log_every": 2}
    expected = trained_here(tmp_path / "here", **options)
    found = new_trainer(tmp_path / "there", device=device, **options)
    waits, step = [], found.step

    def counted():
        before = stand_in.counts()["waits"] if stand_in else 0
        step()
        waits.append(stand_in.counts()["waits"] - before if stand_in else 0)

    found.step = counted
    found.run()
    of_rows = 1 if sparse else 0  # how many rows of the tables a batch has read
    if stand_in:
        assert waits == [of_rows, of_rows + 1] * 2
    assert_same_weights(found.objective.module, expected.objective.module, bitwise_alike=stand_in is not None)
    assert len(figures(tmp_path / "there")) == 2
    for there, here in zip(figures(tmp_path / "there"), figures(tmp_path / "here"), strict=True):
        assert there == pytest.approx(here, rel=1e-4 if stand_in else 1e-3)


def test_the_entropy_model_is_trained_as_on_the_cpu_in_parts_and_clipped(tmp_path, device, stand_in):
    options = {"stage": "entropy", "clip": 0.01, "num_steps": 3, "accumulation": 2}
    expected = trained_here(tmp_path / "here", **options)
    found = new_trainer(tmp_path / "there", device=device, **options)
    found.run()
    assert_same_weights(found.objective.module, expected.objective.module, bitwise_alike=stand_in is not None)


def test_a_loss_that_is_not_finite_is_noticed_before_it_is_saved_and_its_step_is_named(tmp_path, device):
    new_trainer(tmp_path, device=device, stage="entropy", num_steps=2).run()
    trainer = new_trainer(tmp_path, device=device, stage="entropy", num_steps=9, log_every=9, checkpoint_every=5)
    honest = trainer.objective.loss_sum
    trainer.objective.loss_sum = lambda batch: honest(batch) * (torch.nan if trainer.progress.step == 3 else 1)
    with pytest.raises(TrainingError, match=r"step 4: loss nan, gradient norm nan; the last checkpoint is as it was"):
        trainer.run()
    fresh = new_trainer(tmp_path, device=device, stage="entropy", num_steps=3)
    fresh.run()
    assert all(bool(weight.isfinite().all()) for weight in fresh.objective.module.parameters())


def test_metrics_are_those_of_every_step_when_a_run_is_stopped_between_two_rows(tmp_path, device, stand_in):
    whole = trained_here(tmp_path / "here", stage="entropy")
    there = new_trainer(tmp_path / "there", device=device, stage="entropy")
    there.asked_to_stop = lambda: there.progress.step == 2
    with pytest.raises(Stopped):
        there.run()
    new_trainer(tmp_path / "there", device=device, stage="entropy").run()
    assert len(figures(tmp_path / "there")) == whole.progress.step // 3
    for row, other in zip(figures(tmp_path / "there"), figures(tmp_path / "here"), strict=True):
        assert row == pytest.approx(other, rel=1e-4 if stand_in else 1e-3)


def test_a_whole_recipe_goes_through_as_on_the_cpu(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    monkeypatch.setattr(blt.training.validation, "SAMPLE_BYTES", 10)
    options = {f"{stage}.loop.{name}": 2 for stage in ("entropy", "blt") for name in ("num_steps", "batch_size")}
    run_recipe(tiny_recipe(here, overrides={"device": "cpu"} | options))
    name = os.environ.get("BLT_DEVICE")
    with nullcontext() if name else CudaStandIn() as gpu:  # not around the run on the CPU
        assert name or choose_device("auto") == torch.device("cuda", 0)
        run_recipe(tiny_recipe(there, overrides={"device": name or "auto"} | options))
    assert name or gpu.counts()["to_device"] > 0
    for stage in ("entropy", "blt"):
        for row, other in zip(figures(there / "run" / stage), figures(here / "run" / stage), strict=True):
            assert row == pytest.approx(other, rel=0.02)  # kernels of the CPU, and patches at near ties


@pytest.mark.parametrize("plant", ["hashes", "layout", "rotary table"])
def test_a_tensor_left_on_the_host_is_noticed(tmp_path, gpu, monkeypatch, plant):
    if plant == "hashes":
        honest = blt.model.blt.ngram_hashes
        monkeypatch.setattr(blt.model.blt, "ngram_hashes", lambda *inputs: honest(*inputs).cpu())
    elif plant == "layout":
        honest = blt.model.blt.segment_max
        flawed = lambda states, slots, **sizes: honest(states, slots.cpu(), **sizes)  # noqa: E731
        monkeypatch.setattr(blt.model.blt, "segment_max", flawed)
    else:
        monkeypatch.setattr(blt.ops.rotary, "rotary_frequencies", lambda head_dim, **_: torch.ones(head_dim // 2))
    with pytest.raises(RuntimeError, match="same device"):
        new_trainer(tmp_path, device="cuda").run()
