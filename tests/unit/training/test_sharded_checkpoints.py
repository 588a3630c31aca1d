import json
import threading

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from blt.checkpoint import load_headers, load_tensors, save_tensors
from blt.errors import CheckpointError
from blt.training import sharded_checkpoints
from blt.training.checkpoints import Checkpoints, Progress
from blt.training.sharded_checkpoints import Saver
from ranks import run_ranks

WHOLE = torch.arange(7 * 3.0).view(7, 3)  # 7 rows: uneven on 2 ranks


def tensors_of(world):
    """Parts of the two tensors, what both ranks hold alike, and what one holds alone."""
    mesh = init_device_mesh("cpu", (world.size,))
    divided = {"rows": Shard(0), "columns": Shard(1)}
    weights = {name: distribute_tensor(WHOLE.clone(), mesh, [placement]) for name, placement in divided.items()}
    moments = {"0.0.step": torch.tensor(5.0), "0.1.row_steps": torch.ones(4)}
    if world.rank == 1:
        moments["0.2.momentum_buffer"] = WHOLE.clone()
    return weights, moments


def test_parts_are_joined_to_the_files_of_one_process_in_the_background(tmp_path):
    checkpoints = Checkpoints(tmp_path)

    def work(world):
        saver, may_write = Saver(world), threading.Event()
        honest = sharded_checkpoints.write_parts

        def write_parts(*arguments, **options):
            assert may_write.wait(60)
            honest(*arguments, **options)

        sharded_checkpoints.write_parts = write_parts
        weights, moments = tensors_of(world)
        progress = Progress(step=3)
        saver.save(checkpoints, weights, moments, progress, is_best=False)
        assert checkpoints.pointed("last") is None  # training goes on meanwhile:
        for tensor in (*weights.values(), *moments.values()):
            (tensor.to_local() if isinstance(tensor, DTensor) else tensor).fill_(-1)
        progress.step = 4
        may_write.set()
        saver.finish()
        world.wait()
        assert checkpoints.pointed("last").name == "step-00000003"

    run_ranks(2, work, tmp_path / "meeting")
    folder = checkpoints.pointed("last")
    assert sorted(path.name for path in folder.iterdir()) == [
        "optimizers.safetensors",
        "state.json",
        "weights.safetensors",
    ]
    weights, moments = (load_tensors(folder / f"{name}.safetensors") for name in ("weights", "optimizers"))
    assert torch.equal(weights["rows"], WHOLE)
    assert torch.equal(weights["columns"], WHOLE)
    assert torch.equal(moments["0.2.momentum_buffer"], WHOLE)
    assert torch.equal(moments["0.1.row_steps"], torch.ones(4))
    assert float(moments["0.0.step"]) == 5
    assert json.loads((folder / "state.json").read_text())["step"] == 3
    load_headers(folder / "weights.safetensors")


@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), ValueError("a tensor of no known type")], ids=["disk", "other"]
)
def test_a_rank_that_cannot_write_leaves_the_last_checkpoint_and_one_line(tmp_path, failure):
    checkpoints = Checkpoints(tmp_path / "checkpoints")

    def work(world):
        saver = Saver(world)
        weights, moments = tensors_of(world)
        saver.save(checkpoints, weights, moments, Progress(step=1), is_best=True)
        saver.finish()
        if world.rank == 1:
            sharded_checkpoints._Writer.write_data = fail
        saver.save(checkpoints, weights, moments, Progress(step=2), is_best=True)
        with pytest.raises(type(failure), match=str(failure.args[-1])):
            saver.finish()
        world.wait()
        if world.is_main:
            assert checkpoints.pointed("last").name == checkpoints.pointed("best").name == "step-00000001"
            assert not list(checkpoints.folder.glob(".step-*"))

    def fail(*_):
        raise failure

    run_ranks(2, work, tmp_path / "meeting")


def test_a_broken_checkpoint_is_named_with_its_flaw(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")

    def work(world):
        saver = Saver(world)
        weights, moments = tensors_of(world)
        saver.save(checkpoints, weights, moments, Progress(step=1), is_best=True)
        saver.finish()
        world.wait()
        folder = checkpoints.pointed("last")
        other = {"rows": weights["rows"]}
        with pytest.raises(CheckpointError, match=r"weights\.safetensors: .*left over: columns"):
            sharded_checkpoints.read_parts(folder, other, [], shapes={}, as_part=lambda _, tensor: tensor)
        with pytest.raises(CheckpointError, match=r"optimizers\.safetensors: holds 0\.0\.step"):
            sharded_checkpoints.read_parts(folder, weights, [], shapes={}, as_part=lambda _, tensor: tensor)
        world.wait()
        if world.is_main:
            save_tensors(folder / "optimizers.safetensors", {})
        world.wait()
        sharded_checkpoints.HuggingFaceStorageReader.read_data = fail
        with pytest.raises(CheckpointError, match=r"step-00000001: cannot be read \(half a file\)"):
            sharded_checkpoints.read_parts(folder, weights, [], shapes={}, as_part=lambda _, tensor: tensor)

    def fail(*_):
        raise ValueError("half a file")

    run_ranks(2, work, tmp_path / "meeting")
