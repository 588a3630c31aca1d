"""Law 5: stop → resume gives the same losses, bit for bit; parts of a batch, and ranks, give them within tolerance."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from checks_training import NUM_STEPS, OPTIMIZERS, THAWING, losses, new_trainer

import blt.training.loop
from blt.checkpoint import load_tensors
from blt.data import Windows
from blt.data.mixture import MixedSource
from blt.data.order import TABLE
from blt.ops import only_references
from blt.ops.native.build import load
from blt.training import Stopped, checkpoints, monitor
from blt.training.checkpoints import Checkpoints
from ranks import environments
from tiny_training import write_recipe


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    monkeypatch.setattr(monitor, "can_draw", lambda: False)


class Killed(Exception):  # noqa: N818 (an event)
    """The process is gone."""


def die_after(step, note):
    """Note steps until the last one, which is not saved any more."""

    def note_and_die(progress, **figures):
        note(progress, **figures)
        if progress.step == step:
            raise Killed

    return note_and_die


def check_resume(tmp_path, *, stop_after, **what):
    """Compare a run in one go with one that was stopped, and with one that died a step after its checkpoint."""
    whole = new_trainer(tmp_path / "whole", **what)
    whole.run()
    with pytest.raises(Stopped):
        new_trainer(tmp_path / "stopped", stop_after=stop_after, **what).run()
    dying = new_trainer(tmp_path / "killed", **what)
    dying.monitor.step = die_after(5, dying.monitor.step)
    with pytest.raises(Killed):
        dying.run()
    for name in ("stopped", "killed"):
        resumed = new_trainer(tmp_path / name, **what)
        resumed.run()
        assert losses(tmp_path / name) == losses(tmp_path / "whole")
        for weight, wanted in zip(
            resumed.objective.module.parameters(), whole.objective.module.parameters(), strict=True
        ):
            assert torch.equal(weight, wanted)
    assert len(losses(tmp_path / "whole")) == NUM_STEPS


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("stage", ["entropy", "blt", "wide blt", "sparse blt", "dropping wide blt"])
def test_a_stopped_run_goes_on_with_the_same_losses_bit_for_bit(tmp_path, stage, optimizer, accumulation):
    check_resume(tmp_path, stage=stage, optimizer=optimizer, accumulation=accumulation, stop_after=3)


MIXTURE = (MixedSource(ids=range(1200), weight=3.0, epochs=0.3), MixedSource(ids=range(1200, 2800), weight=1.0))


@pytest.mark.parametrize("reading", [{"sources": MIXTURE}, {"order": TABLE}], ids=["mixture", "order of a table"])
def test_a_stopped_run_of_a_mixture_or_of_the_earlier_order_goes_on_bit_for_bit(tmp_path, reading):
    check_resume(tmp_path, stage="blt", reading=reading, stop_after=3)
    sources = [
        new_trainer(tmp_path / "other", stage="blt", reading=reading).windows.source_of(row) for row in range(24)
    ]
    assert sources.count(0) == (9 if "sources" in reading else 24)  # 0.3 epochs of 1,200 ids in rows of 40


@pytest.mark.parametrize("stop_after", [1, 2, 3])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_a_run_that_is_stopped_before_or_after_a_part_thaws_goes_on_bit_for_bit(tmp_path, optimizer, stop_after):
    check_resume(tmp_path, stage="blt", optimizer=optimizer, parts=THAWING, stop_after=stop_after)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_a_frozen_part_keeps_its_weights_until_it_thaws_and_one_with_factor_0_for_ever(tmp_path, optimizer):
    trainer = new_trainer(tmp_path, stage="blt", optimizer=optimizer, parts=THAWING)
    weights = dict(trainer.objective.module.named_parameters())
    first = {name: weight.detach().clone() for name, weight in weights.items()}
    moved = {}
    note = trainer.monitor.step

    def look(progress, **figures):
        note(progress, **figures)
        changed = {name.split(".")[0] for name in weights if not torch.equal(weights[name], first[name])}
        moved[progress.step] = changed

    trainer.monitor.step = look
    trainer.run()
    always = {"hash_embedding", "local_decoder"}
    assert moved == {step: always | ({"global_transformer"} if step > 2 else set()) for step in range(1, 7)}


def without_optimizer_state(monkeypatch):
    monkeypatch.setattr(checkpoints, "_restore", lambda *_, **__: None)


def without_weights(monkeypatch):
    monkeypatch.setattr(checkpoints, "load_weights", lambda *_, **__: None)


def with_a_sampler_that_counts_calls(monkeypatch):
    honest, calls = Windows.batch, {}

    def batch(windows, step, **options):
        calls[id(windows)] = calls.get(id(windows), -1) + 1
        return honest(windows, calls[id(windows)], **options)

    monkeypatch.setattr(Windows, "batch", batch)


def with_step_lost(monkeypatch):
    honest = checkpoints._read_progress
    monkeypatch.setattr(checkpoints, "_read_progress", lambda folder: replace(honest(folder), step=0))


@pytest.mark.parametrize(
    "flaw", [without_optimizer_state, without_weights, with_a_sampler_that_counts_calls, with_step_lost]
)
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_the_check_notices_what_a_resume_forgets(tmp_path, monkeypatch, flaw, optimizer):
    flaw(monkeypatch)
    with pytest.raises(AssertionError):
        check_resume(tmp_path, stage="entropy", optimizer=optimizer, accumulation=1, stop_after=3)


def test_the_check_notices_that_other_positions_are_dropped(tmp_path, monkeypatch):
    seeds = iter(range(1000))
    monkeypatch.setattr(blt.training.loop, "step_seed", lambda *_, **__: next(seeds))
    with pytest.raises(AssertionError):
        check_resume(tmp_path, stage="dropping wide blt", optimizer="adamw", stop_after=3)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_native_kernels_give_the_losses_of_pytorch(tmp_path, optimizer):
    if load("training") is None:
        pytest.skip("no compiler here")
    new_trainer(tmp_path / "fused", stage="wide blt", optimizer=optimizer).run()
    with only_references():
        new_trainer(tmp_path / "pytorch", stage="wide blt", optimizer=optimizer).run()
    found, wanted = (torch.tensor(losses(tmp_path / name)) for name in ("fused", "pytorch"))
    assert not torch.equal(found, wanted), "both ran the same functions"
    torch.testing.assert_close(found, wanted, rtol=5e-3 if optimizer == "muon" else 1e-4, atol=1e-4)


@pytest.mark.parametrize("stage", ["entropy", "blt", "wide blt", "sparse blt"])
def test_parts_of_a_batch_give_the_losses_of_the_whole(tmp_path, stage):
    for parts in (1, 2, 4):
        new_trainer(tmp_path / str(parts), stage=stage, accumulation=parts).run()
    wanted = losses(tmp_path / "1")
    for parts in (2, 4):
        torch.testing.assert_close(torch.tensor(losses(tmp_path / str(parts))), torch.tensor(wanted))


def test_progress_counts_bytes_and_not_ends_of_documents(tmp_path):
    trainer = new_trainer(tmp_path, stage="entropy")
    progress = trainer.run()
    batches = [trainer.windows.batch(step, rows=4) for step in range(NUM_STEPS)]
    assert progress.num_bytes == sum(int((batch.targets >= 4).sum()) for batch in batches)
    assert Checkpoints(tmp_path / "checkpoints").progress() == progress


def start_ranks(recipe, *, size, overrides):
    """Train in processes as torchrun starts them, to their end."""
    command = [sys.executable, "-m", "blt", "train", str(recipe), *overrides]
    with environments(size) as of_ranks:
        ranks = [
            subprocess.Popen(command, env=one, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for one in of_ranks
        ]
        try:
            for process in ranks:
                _, said = process.communicate()
                assert process.returncode == 0, said
        finally:
            for process in ranks:
                process.kill()


@pytest.mark.timeout(600)  # two runs of whole commands, on machines that may be shared
@pytest.mark.parametrize(("parallel", "sparse"), [("ddp", "true"), ("fsdp", "false")])
def test_two_ranks_train_what_one_trains(tmp_path, parallel, sparse):
    recipe = write_recipe(tmp_path)
    overrides = ["--device", "cpu", "--sample_prompt", "", "--blt.loop.optimizer.type", "muon"]
    overrides += ["--blt.sparse_ngrams", sparse]
    overrides += ["--entropy.loop.parallel", parallel, "--blt.loop.parallel", parallel]
    for size in (1, 2):
        start_ranks(recipe, size=size, overrides=[*overrides, "--out", f"{tmp_path}/{size}"])
    for name in ("entropy", "blt"):
        wanted, found = losses(tmp_path / "1" / name), losses(tmp_path / "2" / name)
        torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-4, atol=1e-4)
    for size in (1, 2):
        (states,) = (tmp_path / str(size) / "blt" / "checkpoints").glob("step-00000006/optimizers.safetensors")
        assert any(name.endswith(".row_steps") for name in load_tensors(states)) == (sparse == "true")
    wanted = load_tensors(tmp_path / "1" / "model" / "model.safetensors")
    for key, tensor in load_tensors(tmp_path / "2" / "model" / "model.safetensors").items():
        torch.testing.assert_close(tensor, wanted[key], rtol=1e-3, atol=1e-3)
