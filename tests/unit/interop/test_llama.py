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
        ({"num_hidden_layers": 4}, "missing: model.layers.3.input_layernorm.weight"),
        ({"num_hidden_layers": 10**9}, "speaks of 1,000,000,000 layers, and holds 29 tensors"),
        ({"num_hidden_layers": "3"}, "num_hidden_layers: '3'; expected a whole number above 0"),
        ({"num_attention_heads": 0}, "num_attention_heads: 0; expected a whole number above 0"),
        ({"num_attention_heads": 5}, "expected heads that divide the width"),
        ({"num_key_value_heads": 3}, "expected heads that divide the width"),
        ({"head_dim": 8}, "heads 8 wide"),
        ({"hidden_size": 32, "head_dim": None}, "has shape (64,), expected (32,)"),
        ({"intermediate_size": 1000}, "has shape (96, 64), expected (1000, 64)"),
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
    with pytest.raises(ModelFolderError, match=r"missing: model\.norm\.weight"):
        read_llama(tmp_path)
    path = write_gguf(model, tmp_path / "model.gguf", without=("blk.1.attn_q.weight",))
    with pytest.raises(ModelFolderError, match=r"missing: blk\.1\.attn_q\.weight"):
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


UP = "model.layers.0.mlp.up_proj.weight"


def with_tensors(folder, **changes):
    path = folder / "model.safetensors"
    tensors = load_tensors(path)
    for name, change in changes.items():
        name = name.replace("__", ".")
        tensors[name] = change(tensors.get(name))
    save_tensors(path, tensors)


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("model__layers__0__self_attn__q_proj__bias", torch.ones(64), r"left over: .*q_proj\.bias"),
        ("model__layers__2__self_attn__q_norm__weight", torch.ones(16), r"left over: .*q_norm\.weight"),
        ("model__layers__1__self_attn__k_norm__weight", torch.ones(16), r"left over: .*k_norm\.weight"),
        ("model__layers__1__self_attn__sinks", torch.ones(4), r"left over: .*sinks"),
        ("model__layers__0__mlp__up_proj__SCB", torch.ones(96), r"left over: .*SCB"),
        ("model__layers__0__mlp__up_proj__weight_scale", torch.ones(1), r"left over: .*weight_scale"),
        ("model__norm__bias", torch.ones(64), r"left over: model\.norm\.bias"),
        (UP.replace(".", "__"), torch.ones(96, 64, dtype=torch.int8), "holds int8; weights are floating"),
        (
            UP.replace(".", "__"),
            torch.ones(96, 64, dtype=torch.int32),
            "holds int32; weights are floating",
        ),
        (UP.replace(".", "__"), torch.ones(96, 64, dtype=torch.bool), "holds bool; weights are floating"),
        (UP.replace(".", "__"), torch.ones(96, 64).to(torch.float8_e4m3fn), "holds float8_e4m3fn"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_tensor_that_has_no_place_or_holds_no_weights_is_refused(tmp_path, name, tensor, said):
    new_llama().save_pretrained(tmp_path)
    with_tensors(tmp_path, **{name: lambda _: tensor})
    with pytest.raises(ModelFolderError, match=said) as refused:
        read_llama(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sliding_window": 128}, "sliding_window: 128; only none can be carried over"),
        ({"quantization_config": {"load_in_8bit": True}}, "quantization_config: .* can be carried over"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: 0.5; only 1"),
        (
            {"rope_parameters": {"rope_theta": 777.0, "partial_rotary_factor": 0.5}},
            "partial_rotary_factor: 0.5; only 1",
        ),
    ],
    ids=str,
)
def test_an_argument_that_changes_the_outputs_is_refused(tmp_path, values, said):
    new_llama().save_pretrained(tmp_path)
    change(tmp_path, **values)
    with pytest.raises(ModelFolderError, match=said):
        read_llama(tmp_path)


def test_layers_past_the_number_named_and_arguments_that_are_not_known_are_told(tmp_path):
    new_llama().save_pretrained(tmp_path)
    assert read_llama(tmp_path).notes == ()
    change(tmp_path, num_hidden_layers=2, logits_scaling=8.0, residual_multiplier=0.2, sliding_window=None)
    config = tmp_path / "config.json"
    assert read_llama(tmp_path).notes == (
        f"{config}: config: not known here, and left out: logits_scaling, residual_multiplier",
        f"{config}: speaks of 2 layers; the 1 after them are left out",
    )


def test_a_head_that_a_tied_model_holds_as_well_is_left_aside_as_in_transformers(tmp_path):
    model = new_llama(tie=True)
    model.save_pretrained(tmp_path)
    with_tensors(tmp_path, lm_head__weight=lambda _: torch.randn(VOCABULARY, 64))
    assert deviation(read_llama(tmp_path), model) < 1e-4


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rope.dimension_count": 8}, r"llama\.rope\.dimension_count: 8; only 16"),
        ({"attention.value_length": 8}, r"llama\.attention\.value_length: 8; only 16"),
        ({"attention.sliding_window": 64}, r"llama\.attention\.sliding_window: 64; only 0"),
        ({"expert_count": 4}, r"llama\.expert_count: 4; only 0"),
    ],
    ids=str,
)
def test_a_field_of_gguf_that_changes_the_outputs_is_refused(tmp_path, fields, said):
    with pytest.raises(ModelFolderError, match=said):
        read_llama(write_gguf(new_llama(), tmp_path / "model.gguf", fields=fields))


def test_fields_of_gguf_that_are_what_they_would_be_anyway_say_nothing_and_others_are_told(tmp_path):
    same = {"rope.dimension_count": 16, "attention.value_length": 16, "expert_count": 0, "attention.sliding_window": 0}
    assert read_llama(write_gguf(new_llama(), tmp_path / "same.gguf", fields=same)).notes == ()
    path = write_gguf(new_llama(), tmp_path / "other.gguf", fields={"rope.scale_linear": 4, "logit_scale": 3})
    assert read_llama(path).notes == (
        "its scaling of RoPE (linear, 4) is left out",
        f"{path}: llama: not known here, and left out: logit_scale",
    )
    path = write_gguf(new_llama(), tmp_path / "fewer.gguf", fields={"block_count": 2})
    assert read_llama(path).notes == (f"{path}: speaks of 2 layers; the 1 after them are left out",)


def test_a_tensor_of_gguf_that_has_no_place_is_refused(tmp_path, monkeypatch):
    from blt.interop import llama

    path = write_gguf(new_llama(), tmp_path / "model.gguf")
    names = {**llama._LAYER, "feed_forward.up": ("mlp.up_proj", "ffn_up_other")}
    monkeypatch.setattr(llama, "_LAYER", names)
    with pytest.raises(ModelFolderError, match=r"left over: blk\.0\.ffn_up\.weight, blk\.1\.ffn_up\.weight"):
        read_llama(path)
