"""Model folders that are not what they claim: one clear line, before any memory is taken."""

import json

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blt.api import ByteLM
from blt.codec import encode
from blt.errors import ModelFolderError
from blt.lm import folder
from blt.nn import QuantizedLinear

IDS = encode("Zoë ate 3 crêpes.", bos=True)[None]
HOSTILE = [None, True, 0, -1, 3, 10**9, 10**18, 10**30, 1e308, "x", "", [], [10**9], {}, {"dim": 16}]


def refusal(folder):
    with pytest.raises(ModelFolderError) as error:
        ByteLM.from_pretrained(folder)
    assert str(error.value).isprintable()
    return str(error.value)


def paths_of(values, *, before=()):
    """Every key of a configuration, as the way to it."""
    for key, value in values.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from paths_of(value, before=(*before, key))


def set_at(values, path, value):
    *tables, key = path
    for table in tables:
        values = values[table]
    values[key] = value


def change(folder, path, value):
    values = json.loads((folder / "config.json").read_text())
    set_at(values, path, value)
    (folder / "config.json").write_text(json.dumps(values))


def test_a_folder_of_shards_is_the_same_model(tiny_lm, tmp_path):
    tiny_lm.save_pretrained(tmp_path / "whole")
    tiny_lm.save_pretrained(tmp_path / "sharded", max_shard_bytes=20_000)
    assert not (tmp_path / "sharded" / "model.safetensors").exists()
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 2
    whole, sharded = (ByteLM.from_pretrained(tmp_path / name) for name in ("whole", "sharded"))
    assert torch.equal(whole(IDS), sharded(IDS))
    sharded.save_pretrained(tmp_path / "sharded")
    assert not list((tmp_path / "sharded").glob("model-*"))
    assert torch.equal(ByteLM.from_pretrained(tmp_path / "sharded")(IDS), whole(IDS))


def rounded_tables(lm):
    """Round the embeddings as a folder of quantised weights does."""
    for part in lm.blt.modules():
        if isinstance(part, torch.nn.Embedding):
            part.weight.data = part.weight.data.bfloat16().float()
    return lm


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("max_shard_bytes", [10**9, 5_000])
def test_quantised_weights_are_stored_as_such(tiny_lm, tmp_path, dtype, max_shard_bytes):
    tiny_lm.save_pretrained(tmp_path / "whole")
    tiny_lm.save_pretrained(tmp_path / "small", dtype=dtype, max_shard_bytes=max_shard_bytes)
    found = ByteLM.from_pretrained(tmp_path / "small", dtype=dtype)
    expected = rounded_tables(ByteLM.from_pretrained(tmp_path / "whole")).to_type(dtype)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    assert torch.equal(found(IDS), expected(IDS))
    again = ByteLM.from_pretrained(tmp_path / "small", dtype=dtype)
    again.save_pretrained(tmp_path / "again", max_shard_bytes=max_shard_bytes)
    for file in (tmp_path / "small").glob("*.safetensors"):
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    assert all(weight.dtype == torch.float32 for weight in tiny_lm.parameters())  # saving changed nothing


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_quantised_weights_can_be_computed_with_in_any_type(tiny_lm, tmp_path, dtype, without_shape_checks):
    tiny_lm.save_pretrained(tmp_path / "small", dtype=dtype)
    quantised, whole = (ByteLM.from_pretrained(tmp_path / "small", dtype=name) for name in (dtype, "float32"))
    assert torch.allclose(quantised(IDS), whole(IDS), atol=1e-5)
    assert not [part for part in whole.blt.modules() if isinstance(part, QuantizedLinear)]
    assert all(weight.requires_grad for weight in whole.blt.parameters())
    for name in ("bfloat16", "int8", "int4"):
        assert ByteLM.from_pretrained(tmp_path / "small", dtype=name)(IDS).isfinite().all()


def test_quantised_weights_take_a_quarter_of_the_bytes(tmp_path):
    lm = ByteLM.from_pretrained()
    sizes = {}
    for dtype in ("float32", "int8", "int4"):
        lm.save_pretrained(tmp_path / dtype, dtype=dtype)
        sizes[dtype] = (tmp_path / dtype / "model.safetensors").stat().st_size
    assert sizes["int8"] < 0.4 * sizes["float32"]  # its embeddings take half of theirs
    assert sizes["int4"] < 0.8 * sizes["int8"]


@pytest.mark.parametrize(
    ("claimed", "message"),
    [("int4", "holds I8"), (None, "left over"), ("int2", "stored_as"), ("bfloat16", "stored_as"), (8, "stored_as")],
)
def test_weights_that_are_not_stored_as_config_json_says_are_refused(tiny_lm, tmp_path, claimed, message):
    tiny_lm.save_pretrained(tmp_path / "small", dtype="int8")
    if claimed is None:
        values = json.loads((tmp_path / "small" / "config.json").read_text())
        del values["stored_as"]
        (tmp_path / "small" / "config.json").write_text(json.dumps(values))
    else:
        change(tmp_path / "small", ("stored_as",), claimed)
    assert message in refusal(tmp_path / "small")


def test_codes_of_another_type_are_refused(tiny_lm, tmp_path):
    tiny_lm.save_pretrained(tmp_path / "small", dtype="int8")
    file = tmp_path / "small" / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.dtype == torch.int8)
    safetensors.torch.save_file(tensors | {name: tensors[name].float()}, file)
    assert f"{name} holds F32" in refusal(tmp_path / "small")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("blt", "global_transformer", "num_layers"), 4096, "speaks of 4,101 layers"),
        (("entropy_model", "num_layers"), 4096, "layers; the files hold fewer tensors"),
        (("blt", "global_transformer", "num_layers"), 10**9, "num_layers: 1000000000; at most 4,096"),
        (("blt", "global_transformer", "dim"), 24 * 10**16, "dim: 240000000000000000; at most 131,072"),
        (("blt", "hash_embedding", "num_rows"), 10**12, "num_rows: 1000000000000; at most"),
        (("blt", "hash_embedding", "num_rows"), 10**9, "config.json says (2000000000, 16)"),
        (
            ("blt", "hash_embedding", "ngram_sizes"),
            [3, 4, 10**9],
            "ngram_sizes: (3, 4, 1000000000); each from 2 to 256",
        ),
        (("blt", "queries_per_patch"), 10**9, "queries_per_patch: 1000000000; at most 1,024"),
        (("blt", "queries_per_patch"), 1000, "config.json says (16000, 16)"),
        (("blt", "local_encoder", "window"), 10**12, "window: 1000000000000; at most 1,048,576"),
        (("entropy_model", "window"), 10**30, "window: 1000000000000000000000000000000; at most"),
        (("patch_rule", "max_length"), 10**30, "max_length: 1000000000000000000000000000000; at most"),
        (("blt", "tie_embeddings"), False, "missing: output.weight"),
    ],
    ids=str,
)
def test_a_config_that_claims_more_than_the_files_hold_takes_no_memory(tiny_folder, path, value, said):
    change(tiny_folder, path, value)
    assert said in refusal(tiny_folder)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_config_says_it_is_a_model_or_one_clear_line(tiny_folder, data):
    before = (tiny_folder / "config.json").read_text()
    values = json.loads(before)
    path = data.draw(st.sampled_from(sorted(paths_of(values))))
    set_at(values, path, data.draw(st.sampled_from(HOSTILE)))
    (tiny_folder / "config.json").write_text(json.dumps(values))
    said = ""
    try:
        ByteLM.from_pretrained(tiny_folder)
    except ModelFolderError as error:
        said = str(error)
    finally:
        (tiny_folder / "config.json").write_text(before)
    assert said.isprintable()


def test_a_config_without_the_entropy_model_that_its_rule_needs_is_refused(tiny_folder):
    values = json.loads((tiny_folder / "config.json").read_text())
    (tiny_folder / "config.json").write_text(json.dumps(values | {"entropy_model": None}))
    with pytest.raises(ModelFolderError, match="EntropyRule needs an entropy model, and there is none"):
        ByteLM.from_pretrained(tiny_folder)


def test_weights_that_are_no_numbers_to_compute_with_are_refused(tiny_folder):
    path = tiny_folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["local_decoder.norm.weight"] = torch.ones(16, dtype=torch.int64)
    safetensors.torch.save_file(tensors, path)
    assert "local_decoder.norm.weight holds I64; weights are floating-point numbers" in refusal(tiny_folder)


@pytest.mark.parametrize("size", [0, 7, 300, 2000])
@pytest.mark.parametrize("file", ["model.safetensors", "entropy.safetensors"])
def test_truncated_weights_are_refused(tiny_folder, file, size):
    path = tiny_folder / file
    path.write_bytes(path.read_bytes()[:size])
    assert f"{file}: not a whole safetensors file" in refusal(tiny_folder)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".pkl"])
def test_pickles_are_refused_as_a_folder_and_as_a_name(tiny_folder, suffix):
    (tiny_folder / "model.safetensors").rename(tiny_folder / f"model{suffix}")
    for name in (tiny_folder, tiny_folder / f"model{suffix}", f"me/model{suffix}"):
        said = refusal(name)
        assert f"model{suffix}: pickled weights are never loaded" in said
        assert "save them as safetensors" in said


def bytes_of(lm):
    return lm.blt.hash_embedding.bytes.weight


def test_a_model_in_checkpoints_goes_by_its_name(tiny_lm, tmp_path, monkeypatch):
    tiny_lm.save_pretrained(tmp_path / "checkpoints" / "small")
    tiny_lm.save_pretrained(tmp_path / "checkpoints" / "of" / "another")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(bytes_of(ByteLM.from_pretrained("small")), bytes_of(tiny_lm))
    with pytest.raises(ModelFolderError, match="large: no such folder; give a model folder, a name in checkpoints/"):
        ByteLM.from_pretrained("large")
    with pytest.raises(ModelFolderError, match="of/another: no such folder, and not to be had from the Hub"):
        ByteLM.from_pretrained("of/another", local_files_only=True)


def test_a_model_in_checkpoints_of_the_clone_goes_by_its_name_from_anywhere(tiny_lm, tmp_path, monkeypatch):
    tiny_lm.save_pretrained(tmp_path / "checkpoints" / "small")
    monkeypatch.setattr(folder, "__file__", str(tmp_path / "src" / "blt" / "lm" / "folder.py"))
    assert torch.equal(bytes_of(ByteLM.from_pretrained("small")), bytes_of(tiny_lm))


@pytest.mark.parametrize("name", [".", "./", "../tiny", "../tiny/."])
def test_a_model_folder_may_be_the_one_that_one_works_in(tiny_folder, monkeypatch, name):
    monkeypatch.chdir(tiny_folder)
    assert ByteLM.from_pretrained(name).config == ByteLM.from_pretrained(tiny_folder).config


@pytest.mark.parametrize("name", ["", "/", "..", "\0", "a/\0"])
def test_what_names_no_model_folder_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert refusal(name)
