"""Weights in one file or in shards, and what is no weights."""

import json
import pickle

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.checkpoint import load_headers, load_tensors, load_weights, save_shards
from blt.errors import ModelFolderError

TENSORS = {f"layer.{number}": torch.full((number + 1, 4), float(number)) for number in range(6)}


@pytest.fixture
def sharded(tmp_path):
    """A folder of four shards: 16, 32 and 48 bytes fit in 100, then each stands alone."""
    path = tmp_path / "model.safetensors"
    save_shards(path, TENSORS, max_bytes=100)
    return path


def refusal(path):
    with pytest.raises(ModelFolderError) as error:
        load_tensors(path)
    with pytest.raises(ModelFolderError):
        load_headers(path)
    return str(error.value)


def change_index(path, change):
    index = path.with_name("model.safetensors.index.json")
    values = json.loads(index.read_text())
    change(values["weight_map"])
    index.write_text(json.dumps(values))


def test_shards_have_the_names_and_the_index_that_other_software_expects(sharded):
    files = sorted(file.name for file in sharded.parent.iterdir())
    names = [f"model-{number:05}-of-00004.safetensors" for number in range(1, 5)]
    assert files == [*names, "model.safetensors.index.json"]
    index = json.loads((sharded.parent / files[-1]).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in TENSORS.values())
    assert set(index["weight_map"].values()) == set(names)
    for name, file in index["weight_map"].items():
        assert torch.equal(safetensors.torch.load_file(sharded.parent / file)[name], TENSORS[name])


def test_shards_are_read_as_one_file_would_be(sharded):
    tensors = load_tensors(sharded)
    assert tensors.keys() == TENSORS.keys() == load_headers(sharded).keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=9), most=st.integers(1, 60))
def test_no_shard_is_larger_than_asked_but_by_one_tensor(tmp_path_factory, sizes, most):
    folder = tmp_path_factory.mktemp("shards")
    tensors = {str(number): torch.arange(size, dtype=torch.uint8) for number, size in enumerate(sizes)}
    save_shards(folder / "w.safetensors", tensors, max_bytes=most)
    back = load_tensors(folder / "w.safetensors")
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())
    for file in folder.glob("*.safetensors"):
        held = safetensors.torch.load_file(file)
        assert sum(tensor.nbytes for tensor in held.values()) <= most or len(held) == 1 or sum(sizes) <= most


def test_what_fits_is_one_file(tmp_path):
    save_shards(tmp_path / "model.safetensors", TENSORS)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_missing_shard_is_named(sharded):
    sharded.with_name("model-00002-of-00004.safetensors").unlink()
    assert "model-00002-of-00004.safetensors: no such file" in refusal(sharded)


def test_a_truncated_shard_is_named(sharded):
    shard = sharded.with_name("model-00003-of-00004.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "model-00003-of-00004.safetensors: not a whole safetensors file" in refusal(sharded)


def test_an_index_that_is_not_of_its_files_is_refused(sharded):
    change_index(sharded, lambda placement: placement.pop("layer.1"))
    assert "holds layer.1, of which the index does not know" in refusal(sharded)
    change_index(sharded, lambda placement: placement.update({"layer.1": "model-00004-of-00004.safetensors"}))
    assert "layer.1 is not in model-00004-of-00004.safetensors" in refusal(sharded)


@pytest.mark.parametrize(
    "file",
    [
        "../model.safetensors",
        "/etc/passwd",
        "weights.bin",
        "x\n.safetensors",
        "",
        "x" * 250 + ".safetensors",
        "\ud800.safetensors",
    ],
)
def test_an_index_that_names_files_elsewhere_or_pickles_is_refused(sharded, file):
    change_index(sharded, lambda placement: placement.update({"layer.1": file}))
    assert "is not the name of a safetensors file in this folder" in refusal(sharded)


class Trap:
    """Does something when it is unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.PTH", "model.pkl", "model.ckpt"])
def test_a_pickle_is_refused_by_name_or_beside_and_never_read(tmp_path, capsys, name):
    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    for path in (tmp_path / name, tmp_path / "model.safetensors"):
        said = refusal(path)
        assert f"{name}: pickled weights are never loaded" in said
        assert "save them as safetensors" in said
    (tmp_path / "model.safetensors").write_bytes((tmp_path / name).read_bytes())
    assert "not a whole safetensors file" in refusal(tmp_path / "model.safetensors")
    assert capsys.readouterr().out == ""


def test_a_module_is_filled_from_shards_and_gets_its_memory_then(tmp_path):
    module = torch.nn.Linear(3, 4)
    save_shards(tmp_path / "x.safetensors", module.state_dict(), max_bytes=20)
    with torch.device("meta"):
        other = torch.nn.Linear(3, 4)
    load_weights(other, tmp_path / "x.safetensors")
    assert torch.equal(other.weight, module.weight)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"weight": torch.ones(4, 3)}, "; missing: bias"),
        ({"weight": torch.ones(4, 3), "bias": torch.ones(4), "more": torch.ones(1)}, "; left over: more"),
        ({"weight": torch.ones(3, 4), "bias": torch.ones(4)}, "weight has shape (3, 4), config.json says (4, 3)"),
        ({"weight": torch.ones(4, 3, dtype=torch.int32), "bias": torch.ones(4)}, "weight holds I32; weights are"),
        ({"weight": torch.ones(4, 3).to(torch.float8_e4m3fn), "bias": torch.ones(4)}, "weight holds F8_E4M3; weights"),
        ({"weight": torch.ones(4, 3).to(torch.float8_e5m2), "bias": torch.ones(4)}, "weight holds F8_E5M2; weights"),
    ],
)
def test_a_module_of_another_shape_is_left_as_it_is(tmp_path, tensors, said):
    with torch.device("meta"):
        module = torch.nn.Linear(3, 4)
    safetensors.torch.save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ModelFolderError) as error:
        load_weights(module, tmp_path / "x.safetensors")
    assert said in str(error.value)
    assert module.weight.is_meta
