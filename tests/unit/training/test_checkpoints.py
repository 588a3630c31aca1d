import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from blt import checkpoint
from blt.errors import CheckpointError, TrainingError
from blt.training.checkpoints import Checkpoints, Progress


def new_module():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def new_optimizers(module):
    return [torch.optim.AdamW(module.parameters(), lr=0.1)]


def move(module, optimizers):
    module(torch.ones(1, 3)).sum().backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture
def saved(tmp_path):
    """A module after two steps, saved after each; the first was the best."""
    checkpoints, module = Checkpoints(tmp_path / "checkpoints"), new_module()
    optimizers = new_optimizers(module)
    for step in (1, 2):
        move(module, optimizers)
        checkpoints.save(module, optimizers, Progress(step=step, best_bits_per_byte=2.0), is_best=step == 1)
    return checkpoints, module, optimizers


def test_a_fresh_start_is_step_0(tmp_path):
    module = new_module()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.load(module, new_optimizers(module)) == Progress()
    with pytest.raises(CheckpointError, match="no checkpoint; train this stage first"):
        checkpoints.load_best(module)


def test_weights_optimisers_and_progress_come_back(saved):
    checkpoints, module, optimizers = saved
    loaded = new_module()
    theirs = new_optimizers(loaded)
    assert checkpoints.load(loaded, theirs) == Progress(step=2, best_bits_per_byte=2.0)
    move(module, optimizers)
    move(loaded, theirs)
    for wanted, found in zip(module.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(wanted, found)


def test_the_best_checkpoint_is_kept_beside_the_last(saved):
    checkpoints, _, _ = saved
    assert checkpoints.load_best(new_module()).step == 1
    assert sorted(path.name for path in checkpoints.folder.glob("step-*")) == ["step-00000001", "step-00000002"]


def test_what_neither_last_nor_best_needs_is_deleted_unless_it_is_to_be_kept(tmp_path):
    module = new_module()
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep_every=3)
    leftover = checkpoints.folder / ".step-00000001.77.unfinished"
    leftover.mkdir(parents=True)
    (checkpoints.folder / "step-by-step").mkdir()
    for step in range(1, 8):
        checkpoints.save(module, new_optimizers(module), Progress(step=step), is_best=False)
    names = sorted(path.name for path in checkpoints.folder.iterdir())
    assert names == ["last.json", "step-00000003", "step-00000006", "step-00000007", "step-by-step"]


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizers.safetensors", "state.json"])
def test_a_full_disk_leaves_the_last_checkpoint_as_it_was(saved, monkeypatch, file):
    checkpoints, module, optimizers = saved
    honest = checkpoint.write_file

    def write_file(path, content):
        if path.name == file:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        honest(path, content)

    for part in (checkpoint.files, checkpoint.tensors):
        monkeypatch.setattr(part, "write_file", write_file)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(module, optimizers, Progress(step=3), is_best=True)
    monkeypatch.undo()
    assert checkpoints.load(new_module(), new_optimizers(module)).step == 2
    assert checkpoints.load_best(new_module()).step == 1
    assert not list(checkpoints.folder.glob(".*"))


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizers.safetensors", "state.json"])
def test_a_broken_checkpoint_is_refused(saved, file):
    checkpoints, module, optimizers = saved
    path = checkpoints.folder / "step-00000002" / file
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CheckpointError, match=file):
        checkpoints.load(module, optimizers)
    path.unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        checkpoints.load(module, optimizers)


def test_a_checkpoint_of_another_optimiser_or_model_is_refused(saved, tmp_path):
    checkpoints, module, optimizers = saved
    with pytest.raises(CheckpointError, match="written with another optimiser"):
        checkpoints.load(module, [])
    with pytest.raises(CheckpointError, match="has shape"):
        checkpoints.load(nn.Linear(4, 2), optimizers)
    only_bias = [torch.optim.AdamW([module.bias], lr=0.1)]
    with pytest.raises(CheckpointError, match="written with another optimiser"):
        checkpoints.load(module, only_bias)


def test_a_state_of_another_version_is_refused(saved):
    checkpoints, module, optimizers = saved
    path = checkpoints.folder / "step-00000002" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"phase_of_the_moon": 0.5}))
    with pytest.raises(CheckpointError, match="written by another version of blt"):
        checkpoints.load(module, optimizers)


def test_only_a_lower_finite_figure_is_better():
    progress = Progress()
    assert progress.is_better(8.0)
    assert not progress.is_better(float("nan"))
    progress = replace(progress, best_bits_per_byte=2.0)
    assert progress.is_better(1.9)
    assert not progress.is_better(2.0)
    assert not progress.is_better(float("nan"))


def test_the_layout_of_a_checkpoint_is_that_of_runs_under_way(saved):
    checkpoints, _, _ = saved
    folder = checkpoints.folder / "step-00000002"
    assert sorted(path.name for path in folder.iterdir()) == [
        "optimizers.safetensors",
        "state.json",
        "weights.safetensors",
    ]
    assert json.loads((checkpoints.folder / "last.json").read_text()) == {"folder": "step-00000002"}
    assert set(json.loads((folder / "state.json").read_text())) == {
        "step",
        "num_bytes",
        "seconds",
        "best_bits_per_byte",
        "is_finished",
    }
    names = set(checkpoint.load_tensors(Path(folder / "optimizers.safetensors")))
    assert names == {f"0.{index}.{key}" for index in (0, 1) for key in ("step", "exp_avg", "exp_avg_sq")}


def without(name):
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if not key.startswith(name)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: {}, "lacks 0.0.exp_avg"),
        (without("0.1."), "lacks 0.1.exp_avg"),
        (without("0.0.exp_avg_sq"), "lacks 0.0.exp_avg_sq"),
        (without("0.1.step"), "lacks 0.1.step"),
        (lambda tensors: tensors | {"0.7.exp_avg": torch.zeros(2)}, "holds 0.7.exp_avg"),
        (lambda tensors: tensors | {"moments": torch.zeros(2)}, "holds moments"),
        (lambda tensors: tensors | {"0.0.exp_avg": torch.zeros(2, 2)}, "has another shape of 0.0.exp_avg"),
        (lambda tensors: tensors | {"0.0.exp_avg": torch.full((2, 3), torch.nan)}, "0.0.exp_avg is not finite"),
    ],
)
def test_a_checkpoint_whose_moments_are_not_all_there_is_refused(saved, change, said):
    checkpoints, module, optimizers = saved
    path = checkpoints.folder / "step-00000002" / "optimizers.safetensors"
    checkpoint.save_tensors(path, change(checkpoint.load_tensors(path)))
    with pytest.raises(CheckpointError, match=said):
        checkpoints.load(module, optimizers)


def test_weights_of_a_frozen_part_have_no_moments_and_need_none(tmp_path):
    checkpoints, module = Checkpoints(tmp_path / "checkpoints"), new_module()
    module.bias.requires_grad_(False)
    optimizers = new_optimizers(module)
    move(module, optimizers)
    checkpoints.save(module, optimizers, Progress(step=1), is_best=False)
    checkpoints.load(module, new_optimizers(module))
    module.bias.requires_grad_(True)
    with pytest.raises(CheckpointError, match=r"lacks 0\.1\.exp_avg"):
        checkpoints.load(module, new_optimizers(module))


@pytest.mark.parametrize("what", ["weight", "moment"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_never_saved_and_nothing_is_deleted_for_it(saved, what, value):
    checkpoints, module, optimizers = saved
    before = {path: path.read_bytes() for path in checkpoints.folder.rglob("*") if path.is_file()}
    with torch.no_grad():
        tensor = module.weight if what == "weight" else optimizers[0].state[module.weight]["exp_avg_sq"]
        tensor[1, 2] = value
    with pytest.raises(TrainingError, match=r"step 3: .* is not finite .*; the last checkpoint is as it was"):
        checkpoints.save(module, optimizers, Progress(step=3), is_best=True)
    assert {path: path.read_bytes() for path in checkpoints.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "step-00000009", "", None, 3, "step-0000000２"])
def test_a_pointer_to_what_is_no_checkpoint_beside_it_is_refused(saved, name):
    checkpoints, module, optimizers = saved
    (checkpoints.folder.parent / "elsewhere").mkdir()
    (checkpoints.folder / "last.json").write_text(json.dumps({"folder": name}))
    with pytest.raises(CheckpointError, match=r"last.json: names .*, which is no checkpoint beside it"):
        checkpoints.load(module, optimizers)


@pytest.mark.parametrize(
    "change",
    [
        {"step": "2"},
        {"step": 1},
        {"step": -2},
        {"step": 2.0},
        {"num_bytes": None},
        {"num_bytes": 10**30},
        {"seconds": float("nan")},
        {"seconds": -1.0},
        {"best_bits_per_byte": float("inf")},
        {"best_bits_per_byte": "low"},
        {"is_finished": 1},
    ],
)
def test_a_damaged_state_is_one_clear_line(saved, change):
    checkpoints, module, optimizers = saved
    path = checkpoints.folder / "step-00000002" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=r"state.json: is damaged"):
        checkpoints.load(module, optimizers)


def test_a_state_that_lacks_a_field_is_no_fresh_start(saved):
    checkpoints, module, optimizers = saved
    path = checkpoints.folder / "step-00000002" / "state.json"
    path.write_text("{}")
    with pytest.raises(CheckpointError, match="lacks best_bits_per_byte; damaged"):
        checkpoints.load(module, optimizers)
