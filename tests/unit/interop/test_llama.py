import json

import pytest
import torch

from blt.checkpoint import load_tensors, save_tensors
from blt.errors import ModelFolderError
from blt.interop.llama import read_llama
from llama_models import KINDS, VOCABULARY, new_llama, write_gguf

HEADS = [(4, 4), (4, 2), (4, 1), (8, 2)]


def deviation(llama, model):
    """Largest difference of logits between the layers that were read, run as a token model, and transformers."""
    token_ids = torch.randint(VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model(token_ids).logits
    assert wanted.std() > 0.3
    return float((llama.token_logits(token_ids) - wanted).abs().max())


@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("heads", "shared"), HEADS)
def test_a_folder_of_safetensors_gives_the_logits_of_transformers(tmp_path, heads, shared, tie):
    model = new_llama(heads=heads, shared=shared, tie=tie)
    model.save_pretrained(tmp_path)
    assert deviation(read_llama(tmp_path), model) < 1e-4


@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("heads", "shared"), HEADS)
def test_a_gguf_file_gives_the_logits_of_transformers(tmp_path, heads, shared, tie):
    model = new_llama(heads=heads, shared=shared, tie=tie)
    assert deviation(read_llama(write_gguf(model, tmp_path / "model.gguf")), model) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_gguf_file_is_dequantised(tmp_path, kind):
    model = new_llama()
    before = model.model.layers[0].mlp.up_proj.weight.clone()
    path = write_gguf(model, tmp_path / "model.gguf", kind=kind)
    assert torch.equal(before, model.model.layers[0].mlp.up_proj.weight) == (kind == "F32")
    assert deviation(read_llama(tmp_path), model) < 1e-4  # a folder with one GGUF file
    assert deviation(read_llama(path), model) < 1e-4


def test_the_comparison_notices_rows_left_in_llama_cpps_order_and_heads_shared_wrongly(tmp_path, monkeypatch):
    from blt.interop import llama

    model = new_llama()
    path = write_gguf(model, tmp_path / "model.gguf")
    monkeypatch.setattr(llama, "_halves", lambda weight, *_, **__: weight)
    assert deviation(read_llama(path), model) > 1e-2
    monkeypatch.undo()
    read = read_llama(path)
    for name in list(read.layers):
        if name.endswith("attention.value.weight"):
            read.layers[name] = read.layers[name].view(2, 2, 16, -1).transpose(0, 1).reshape(64, -1)
    assert deviation(read, model) > 1e-2


def test_shards_with_an_index_are_read(tmp_path):
    model = new_llama()
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert deviation(read_llama(tmp_path), model) < 1e-4


def test_scaling_of_rope_is_left_out_and_told(tmp_path):
    model = new_llama()
    model.save_pretrained(tmp_path)
    change(tmp_path, rope_parameters={"rope_type": "llama3", "rope_theta": 777.0, "factor": 8.0})
    llama = read_llama(tmp_path)
    assert llama.rope_theta == 777.0
    assert llama.notes == ("its scaling of RoPE (llama3) is left out",)
    change(tmp_path, rope_parameters=None, rope_theta=55.0)
    assert (read_llama(tmp_path).rope_theta, read_llama(tmp_path).notes) == (55.0, ())


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not 'llama'"),
        ({"attention_bias": True}, "attention_bias: True; only False can be carried over"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu'; only 'silu' can be carried over"),
        ({"num_hidden_layers": 2}, None),
        ({"num_hidden_layers": 4}, "lacks model.layers.3.input_layernorm.weight"),
        ({"num_hidden_layers": 10**9}, "speaks of 1,000,000,000 layers, and holds 29 tensors"),
        ({"num_hidden_layers": "3"}, "num_hidden_layers: '3'; expected a whole number above 0"),
        ({"num_attention_heads": 0}, "num_attention_heads: 0; expected a whole number above 0"),
        ({"num_attention_heads": 5}, "expected heads that divide the width"),
        ({"num_key_value_heads": 3}, "expected heads that divide the width"),
        ({"head_dim": 8}, "heads 8 wide"),
        ({"hidden_size": 32, "head_dim": None}, "has shape (64,), expected (32,)"),
        ({"intermediate_size": 10**12}, "has shape (96, 64), expected (1000000000000, 64)"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps: 'small'; expected a number"),
        ({"rope_parameters": [1]}, "rope_parameters: expected a table of keys"),
    ],
    ids=str,
)
def test_a_folder_that_cannot_be_carried_over_is_one_line(tmp_path, values, said):
    new_llama().save_pretrained(tmp_path)
    change(tmp_path, **values)
    if said is None:  # the first layers of a deeper model: nothing is wrong with them
        assert read_llama(tmp_path).shape.num_layers == 2
        return
    with pytest.raises(ModelFolderError) as error:
        read_llama(tmp_path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_pickles_missing_files_and_ambiguous_folders_are_refused(tmp_path):
    with pytest.raises(ModelFolderError, match="no such folder or file"):
        read_llama(tmp_path / "nowhere")
    with pytest.raises(ModelFolderError, match=r"has no config\.json, and 0 GGUF files"):
        read_llama(tmp_path)
    (tmp_path / "a.gguf").touch()
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ModelFolderError, match=r"has no config\.json, and 2 GGUF files"):
        read_llama(tmp_path)
    (tmp_path / "model.bin").touch()
    with pytest.raises(ModelFolderError, match="pickled weights are never loaded"):
        read_llama(tmp_path / "model.bin")


def test_a_tensor_that_is_missing_is_named(tmp_path):
    model = new_llama()
    model.save_pretrained(tmp_path)
    tensors = load_tensors(tmp_path / "model.safetensors")
    del tensors["model.norm.weight"]
    save_tensors(tmp_path / "model.safetensors", tensors)
    with pytest.raises(ModelFolderError, match=r"lacks model\.norm\.weight"):
        read_llama(tmp_path)
    path = write_gguf(model, tmp_path / "model.gguf", without=("blk.1.attn_q.weight",))
    with pytest.raises(ModelFolderError, match=r"lacks blk\.1\.attn_q\.weight"):
        read_llama(path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attention.head_count": 3}, "does not divide into 3 heads"),
        ({"block_count": 10**9}, "speaks of 1,000,000,000 layers"),
        ({"attention.key_length": 8}, "heads 8 wide"),
        ({"embedding_length": 32}, "expected"),
    ],
)
def test_a_gguf_file_that_contradicts_itself_is_one_line(tmp_path, fields, said):
    path = write_gguf(new_llama(), tmp_path / "model.gguf", fields=fields)
    with pytest.raises(ModelFolderError, match=said):
        read_llama(path)
