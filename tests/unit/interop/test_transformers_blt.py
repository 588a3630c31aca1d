"""Folders of transformers, without transformers: what comes back, and what is refused."""

import dataclasses
import json

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blt.codec import encode
from blt.errors import ConfigurationError, ModelFolderError
from blt.interop import read_transformers, write_transformers
from blt.patching import SpaceRule
from transformers_models import Theirs

IDS = encode("Zoë ate 3 crêpes by the lake.", bos=True)[None]
HEAD = "lm_head.weight"
EMBEDDING = "model.local_encoder.embed_tokens.weight"


@pytest.fixture
def folder(tiny_lm, tmp_path):
    """A folder of transformers, written by us."""
    write_transformers(tiny_lm, tmp_path / "theirs")
    return tmp_path / "theirs"


def edit(folder, *, config=None, add=None, drop=()):
    """Change fields of the config.json, by dotted path, and tensors."""
    values = json.loads((folder / "config.json").read_text())
    for path, value in (config or {}).items():
        table, _, key = path.rpartition(".")
        (values[table] if table else values)[key] = value
    (folder / "config.json").write_text(json.dumps(values))
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if name not in drop}
    safetensors.torch.save_file(kept | (add or {}), folder / "model.safetensors")


def refusal(folder):
    with pytest.raises(ModelFolderError) as error:
        read_transformers(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def same(first, second):
    """Compare bit for bit: logits may differ in the last one, by where in memory weights lie."""
    ours, theirs = first.state_dict(), second.state_dict()
    return (
        first.config == second.config and all(torch.equal(ours[name], theirs.pop(name)) for name in ours) and not theirs
    )


def test_what_was_written_comes_back(tiny_lm, folder):
    back = read_transformers(folder)
    assert back.patch_rule == tiny_lm.patch_rule
    assert back.config.entropy_model.tie_embeddings
    assert torch.equal(back.entropies(IDS), tiny_lm.entropies(IDS))
    assert float((back(IDS) - tiny_lm(IDS)).detach().abs().max()) < 1e-3  # the ε of one stack: see `residual`


def test_what_was_read_is_written_and_read_again_bit_for_bit(folder, tmp_path):
    first = read_transformers(folder)
    write_transformers(first, tmp_path / "again")
    second = read_transformers(tmp_path / "again")
    assert same(first, second)


def test_the_card_goes_along(tiny_lm, tmp_path):
    tiny_lm.card = "# A card\n"
    write_transformers(tiny_lm, tmp_path / "theirs")
    assert read_transformers(tmp_path / "theirs").card == "# A card\n"


def test_weights_keep_their_precision(tiny_lm, tmp_path):
    write_transformers(tiny_lm.to(torch.bfloat16), tmp_path / "theirs")
    assert json.loads((tmp_path / "theirs" / "config.json").read_text())["dtype"] == "bfloat16"
    assert read_transformers(tmp_path / "theirs").blt.hash_embedding.bytes.weight.dtype == torch.bfloat16


def test_shards_are_joined(folder):
    whole = read_transformers(folder)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, members in shards.items():
        safetensors.torch.save_file({name: tensors[name] for name in members}, folder / file)
    placement = {name: file for file, members in shards.items() for name in members}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placement}))
    assert same(read_transformers(folder), whole)

    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors: no such file" in refusal(folder)


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/passwd", "weights.bin"])
def test_an_index_that_names_files_elsewhere_or_pickles_is_refused(folder, file):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {HEAD: file}}))
    assert "is not the name of a safetensors file in this folder" in refusal(folder)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "{"])
def test_an_index_that_is_none_is_refused(folder, index):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json" in refusal(folder)


def test_an_index_may_not_promise_what_the_files_do_not_hold(folder):
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.x": "part.safetensors"}}))
    assert "model.x is not in part.safetensors" in refusal(folder)


def test_a_pickle_is_refused_with_a_way_out(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    said = refusal(folder)
    assert "pytorch_model.bin: pickled weights are never loaded" in said
    assert "save them as safetensors" in said


@pytest.mark.parametrize("size", [0, 4, 100, 2000])
def test_truncated_weights_are_refused(folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "not a whole safetensors file" in refusal(folder)


def test_a_header_that_claims_more_than_there_is_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])
    assert "not a whole safetensors file" in refusal(folder)


def test_missing_and_left_over_tensors_are_named(folder):
    edit(folder, drop=["model.local_decoder.norm.weight"], add={"model.extra.weight": torch.zeros(2)})
    said = refusal(folder)
    assert "missing: model.local_decoder.norm.weight" in said
    assert "left over: model.extra.weight" in said


def test_what_transformers_never_reads_is_left_out(folder):
    before = read_transformers(folder)
    edit(folder, add={"model.global_transformer.rotary_emb.inv_freq": torch.ones(3)})
    assert same(read_transformers(folder), before)


@pytest.mark.parametrize("held", [(EMBEDDING,), (HEAD,), (EMBEDDING, HEAD)])
def test_a_tied_embedding_may_go_by_either_name(folder, held):
    before = read_transformers(folder)
    edit(folder, drop={EMBEDDING, HEAD} - set(held))
    assert same(read_transformers(folder), before)


def test_two_embeddings_that_are_tied_and_differ_are_refused(folder):
    edit(folder, add={HEAD: torch.zeros(260, 16)})
    assert "tie_word_embeddings is true" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "llama"}, "model_type 'llama' is not 'blt'"),
        ({"vocab_size": 256}, "vocab_size: 256"),
        ({"encoder_config.hidden_act": "gelu"}, "encoder_config.hidden_act: 'gelu'"),
        ({"encoder_config.hidden_size": 32}, "local_decoder.dim: 16 differs from local_encoder.dim, 32"),
        ({"encoder_config.hidden_size": "wide"}, "expected a whole number of at least 1, found 'wide'"),
        ({"global_config": 3}, "global_config: expected a table of keys"),
        ({"cross_attn_k": 5}, "cross_attn_k: 2; only 5"),
        ({"decoder_config.hidden_size_global": 5}, "hidden_size_global: 5"),
        ({"decoder_config.rope_parameters": {"rope_type": "yarn"}}, "RoPE of type 'yarn'"),
        ({"decoder_config.rope_parameters": {"rope_theta": 7.0}}, "rope_theta 7.0"),
        ({"global_config.num_key_value_heads": 3}, "3 does not divide 2 attention heads"),
        ({"global_config.num_attention_heads": 7}, "must be a multiple of 2 × num_heads"),
        ({"global_config.num_hidden_layers": 4_000}, "the files hold fewer tensors"),
        ({"global_config.num_hidden_layers": 3}, "missing: model.global_transformer.layers.2."),
        ({"global_config.intermediate_size": 10**6}, "config.json says (1000000, 24)"),
        ({"encoder_hash_byte_group_vocab": 33}, "config.json says (66, 16)"),
        ({"encoder_hash_byte_group_nb_functions": 99}, "num_functions: 99; expected 1 to 11"),
        ({"patching_threshold": None}, "threshold"),
        ({"patch_size": None}, "set patching_mode to 'byte'"),
        ({"max_patch_length": 0}, "max_length: a patch holds at least 1 byte"),
        ({"local_attention_window_len": "far"}, "window: expected int, got 'far'"),
    ],
    ids=str,
)
def test_a_config_that_cannot_be_carried_over_is_refused(folder, changes, said):
    edit(folder, config=changes)
    assert said in refusal(folder)


HOSTILE = [None, True, 0, -1, 3, 10**9, 10**18, 10**30, 1e308, "x", "", [], [10**9], {}, {"rope_theta": "x"}]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_config_says_it_is_a_model_or_one_clear_line(folder, data):
    before = (folder / "config.json").read_text()
    values = json.loads(before)
    tables = [values, *(value for value in values.values() if isinstance(value, dict))]
    table = data.draw(st.sampled_from(tables))
    table[data.draw(st.sampled_from(sorted(table)))] = data.draw(st.sampled_from(HOSTILE))
    (folder / "config.json").write_text(json.dumps(values))
    said = ""
    try:
        read_transformers(folder)
    except ModelFolderError as error:
        said = str(error)
    finally:
        (folder / "config.json").write_text(before)
    assert said.isprintable()


def test_weights_that_are_no_numbers_are_refused(folder):
    edit(folder, add={"model.local_decoder.norm.weight": torch.ones(16, dtype=torch.int64)})
    assert "model.local_decoder.norm.weight holds int64; weights are floating-point numbers" in refusal(folder)


def test_a_rule_that_transformers_has_not_is_refused(tiny_lm, tmp_path):
    tiny_lm.patch_rule = SpaceRule()
    with pytest.raises(ConfigurationError, match="no rule 'space', only 'entropy' and 'byte'"):
        write_transformers(tiny_lm, tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_what_differs_there_is_said(tiny_lm, tmp_path):
    lines = write_transformers(tiny_lm, tmp_path / "theirs")
    assert any("windowed (8 bytes)" in line for line in lines)
    assert any("residual twice" in line for line in lines)
    assert not any("max_patch_length" in line for line in lines)
    tiny_lm.patch_rule = dataclasses.replace(tiny_lm.patch_rule, max_length=4)
    decoder = dataclasses.replace(tiny_lm.blt.config.local_decoder, window=5)
    tiny_lm.blt.config = dataclasses.replace(tiny_lm.blt.config, local_decoder=decoder)
    lines = write_transformers(tiny_lm, tmp_path / "theirs")
    assert any("outputs differ past 5 bytes" in line for line in lines)
    assert any("max_patch_length" in line for line in lines)


def test_what_transformers_writes_is_known_and_anything_else_is_told(tmp_path):
    Theirs().save(tmp_path)
    told = []
    read_transformers(tmp_path, tell=told.append)
    assert told == []
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    values["decoder_config"]["logit_softcap"] = 30.0
    path.write_text(json.dumps(values | {"attention_multiplier": 2.0, "future_option": None}))
    read_transformers(tmp_path, tell=told.append)
    assert told == [
        f"{path}: config: not known here, and left out: attention_multiplier",
        f"{path}: decoder_config: not known here, and left out: logit_softcap",
    ]
    path.write_text(json.dumps(values | {"quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(ModelFolderError, match="quantization_config"):
        read_transformers(tmp_path)
