"""The published layout, on stand-ins: a model of ours under published names and arguments."""

import dataclasses
import json

import pytest
import safetensors.torch
import torch

from blt.api import ByteLM
from blt.cli import main
from blt.codec import encode
from blt.errors import ModelFolderError
from blt.interop import published as published_module
from blt.interop import read_published, read_transformers, write_transformers
from blt.model import HashConfig
from blt.patching import EntropyRule
from transformers_models import BltConfig, BltForCausalLM

IDS = encode("Zoë ate 3 crêpes by the lake.", bos=True)[None]
NAMES = {
    "self_attn": "attention",
    "mlp": "feed_forward",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "embed_tokens": "tok_embeddings",
    "q_norm": "cross_attn_norm_q",
    "k_norm": "cross_attn_norm_kv",
    "gate_proj": "w1",
    "down_proj": "w2",
    "up_proj": "w3",
    "q_proj": "wq",
    "k_proj": "wk",
    "v_proj": "wv",
    "o_proj": "wo",
    "lm_head": "output",
}


def published_name(name):
    name = name.replace("lm_head", "local_decoder.lm_head") if name == "lm_head.weight" else name
    name = name.removeprefix("model.").removeprefix("patcher.")
    return ".".join(NAMES.get(part, part) for part in name.split("."))


@pytest.fixture
def published(tiny_lm, tmp_path):
    """Folders of a model and its entropy model, as published, and the same read in transformers' form."""
    hashing = HashConfig(ngram_sizes=(3, 4), num_rows=32, num_functions=2)
    shape = dataclasses.replace(tiny_lm.blt.config, hash_embedding=hashing, tie_embeddings=False)
    lm = ByteLM.new(dataclasses.replace(tiny_lm.config, blt=shape))
    write_transformers(lm, tmp_path / "theirs")
    tensors = safetensors.torch.load_file(tmp_path / "theirs" / "model.safetensors")
    tables = tensors.pop("model.encoder_hash_tok_embedding.weight").split(32)
    tensors |= {f"model.encoder_hash_tok_embedding.{number}.weight": table for number, table in enumerate(tables)}
    folders = {"model": {}, "entropy": {}}
    for name, tensor in tensors.items():
        folders["entropy" if ".patcher." in name else "model"][published_name(name)] = tensor.contiguous()
    values = json.loads((tmp_path / "theirs" / "config.json").read_text())
    arguments = {
        "vocab_size": 260,
        "dim_global": 24,
        "dim_local_encoder": 16,
        "dim_local_decoder": 16,
        "n_layers_global": 2,
        "n_layers_local_encoder": 1,
        "n_layers_local_decoder": 2,
        "n_heads_global": 2,
        "n_heads_local_encoder": 2,
        "n_heads_local_decoder": 2,
        "cross_attn_k": 2,
        "cross_attn_all_layers_encoder": False,
        "cross_attn_all_layers_decoder": True,
        "encoder_hash_byte_group_size": [3, 4],
        "encoder_hash_byte_group_vocab": 32,
        "encoder_hash_byte_group_nb_functions": 2,
        "local_attention_window_len": 8,
        "norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "n_kv_heads": None,
        "multiple_of": 256,
    }
    entropy = {"vocab_size": 260, "dim": 16, "n_layers": 2, "n_heads": 2, "rope_theta": 500000.0, "sliding_window": 6}
    theirs = values["decoder_config"] | {"rms_norm_eps": 1e-5}  # published models have one ε
    values["decoder_config"] = theirs
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(values))
    for name, table in (("model", arguments), ("entropy", entropy)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"args": table}))
        safetensors.torch.save_file(folders[name], tmp_path / name / "model.safetensors")
    (tmp_path / "model" / "entropy_model").mkdir()
    parameters = {"data": {"patcher_args": {"threshold": 5.11, "patch_size": 4.5}}}
    (tmp_path / "model" / "entropy_model" / "params.json").write_text(json.dumps(parameters))
    return tmp_path


def test_published_names_and_arguments_give_the_model(published):
    lm = read_published(published / "model", entropy=published / "entropy")
    expected = read_transformers(published / "theirs")
    assert lm.patch_rule == EntropyRule(threshold=5.11)
    assert lm.config == expected.config
    assert torch.equal(lm(IDS), expected(IDS))


def test_without_a_word_on_the_threshold_it_is_that_of_the_published_models(published):
    (published / "model" / "entropy_model" / "params.json").unlink()
    lm = read_published(published / "model", entropy=published / "entropy")
    assert lm.patch_rule.threshold == pytest.approx(1.335442)


def change(path, *, drop=(), add=None):
    tensors = safetensors.torch.load_file(path)
    kept = {name: tensor for name, tensor in tensors.items() if name not in drop}
    safetensors.torch.save_file(kept | (add or {}), path)


@pytest.mark.parametrize(
    ("part", "dropped", "said"),
    [
        ("model", "local_decoder.layers.1.attention.wq.weight", "local_decoder.layers.1.attention.wq.weight"),
        ("model", "local_decoder.output.weight", "local_decoder.output.weight"),
        ("entropy", "layers.0.feed_forward.w2.weight", "layers.0.feed_forward.w2.weight of the entropy model"),
        ("entropy", "output.weight", "output.weight of the entropy model"),
    ],
)
def test_missing_and_left_over_tensors_are_named_as_in_the_file(published, part, dropped, said):
    change(published / part / "model.safetensors", drop=[dropped], add={"extra.w1.weight": torch.ones(2)})
    with pytest.raises(ModelFolderError) as refusal:
        read_published(published / "model", entropy=published / "entropy")
    assert str(refusal.value).endswith(f"; missing: {said}; left over: extra.w1.weight")


def test_a_missing_n_gram_table_is_named_and_one_too_many_too(published):
    path = published / "model" / "model.safetensors"
    change(path, add={"encoder_hash_tok_embedding.4.weight": torch.ones(32, 16)})
    with pytest.raises(ModelFolderError, match=r"left over: encoder_hash_tok_embedding\.4\.weight"):
        read_published(published / "model", entropy=published / "entropy")
    change(path, drop=["encoder_hash_tok_embedding.2.weight"])
    with pytest.raises(ModelFolderError, match=r"encoder_hash_tok_embedding\.2\.weight is missing"):
        read_published(published / "model", entropy=published / "entropy")


def test_two_names_of_one_tensor_are_refused(published):
    twice = {"local_decoder.layers.0.self_attn.q_proj.weight": torch.ones(16, 16)}
    change(published / "model" / "model.safetensors", add=twice)
    with pytest.raises(ModelFolderError, match=r"are two names of one tensor"):
        read_published(published / "model", entropy=published / "entropy")


def test_a_shape_that_cannot_be_is_told_by_the_name_in_the_file(published):
    name = "global_transformer.layers.0.attention.wv.weight"
    change(published / "model" / "model.safetensors", add={name: torch.ones(24, 3)})
    with pytest.raises(ModelFolderError, match=rf"{name} has the shape \(24, 3\), config.json says \(24, 24\)"):
        read_published(published / "model", entropy=published / "entropy")


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("model", {"dim_global": None}, "args.dim_global: missing"),
        ("model", {"n_layers_global": None, "rope_theta": None}, "args.n_layers_global: missing, and 1 more"),
        ("model", {"dim_global": "x"}, "found 'x'"),
        ("model", {"vocab_size": 256}, "args.vocab_size: 256; only 260 can be carried over"),
        ("model", {"pm_size": 3}, "args.pm_size: 3; only 0"),
        ("model", {"weight_tying": True}, "args.weight_tying: True; only False"),
        ("model", {"encoder_hash_byte_group_size": 3}, "args.encoder_hash_byte_group_size: expected a list, found 3"),
        ("model", {"encoder_hash_byte_group_nb_functions": 10**9}, "encoder_hash_tok_embedding.4.weight is missing"),
        ("model", {"n_layers_global": 4_000}, "the files hold fewer tensors"),
        ("entropy", {"dim": None}, "entropy/config.json: args.dim: missing"),
    ],
)
def test_arguments_that_cannot_be_are_refused(published, part, changes, said):
    path = published / part / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({"args": values["args"] | changes}))
    with pytest.raises(ModelFolderError) as refusal:
        read_published(published / "model", entropy=published / "entropy")
    assert said in str(refusal.value)


@pytest.mark.parametrize("content", [{"args": 3}, {}])
def test_a_config_without_arguments_is_refused(published, content):
    (published / "model" / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelFolderError, match="expected a table 'args'"):
        read_published(published / "model", entropy=published / "entropy")


@pytest.mark.parametrize("changes", [{"monotonicity": True}, {"threshold_add": 0.3}])
def test_a_patch_rule_of_another_kind_is_refused(published, changes):
    parameters = {"data": {"patcher_args": {"threshold": 5.11} | changes}}
    (published / "model" / "entropy_model" / "params.json").write_text(json.dumps(parameters))
    with pytest.raises(ModelFolderError, match=rf"patcher_args.{next(iter(changes))}: .* can be carried over"):
        read_published(published / "model", entropy=published / "entropy")


BILLION = {
    "vocab_size": 260,
    "dim_global": 2048,
    "dim_local_encoder": 1024,
    "dim_local_decoder": 1024,
    "n_layers_global": 25,
    "n_layers_local_encoder": 1,
    "n_layers_local_decoder": 9,
    "n_heads_global": 16,
    "n_heads_local_encoder": 16,
    "n_heads_local_decoder": 16,
    "n_kv_heads": None,
    "n_kv_heads_global": None,
    "cross_attn_k": 2,
    "cross_attn_all_layers_encoder": False,
    "cross_attn_all_layers_decoder": True,
    "encoder_hash_byte_group_size": [3, 4, 5, 6, 7, 8],
    "encoder_hash_byte_group_vocab": 500002,
    "encoder_hash_byte_group_nb_functions": 1,
    "local_attention_window_len": 512,
    "norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "multiple_of": 256,
    "max_encoder_seq_length": 24576,
}
"""The shape of blt-1b in the paper."""
SEVEN_BILLION = BILLION | {
    "dim_global": 4096,
    "dim_local_encoder": 1280,
    "dim_local_decoder": 1280,
    "n_layers_global": 32,
    "n_layers_local_decoder": 6,
    "n_heads_global": 32,
    "n_heads_local_encoder": 20,
    "n_heads_local_decoder": 20,
    "cross_attn_k": 4,
}
"""The shape of blt-7b in the paper, where it is called 8B."""
HUNDRED_MILLION = {
    "vocab_size": 260,
    "dim": 768,
    "n_layers": 14,
    "n_heads": 12,
    "max_seqlen": 8192,
    "rope_theta": 10000.0,
    "norm_eps": 1e-5,
    "sliding_window": 512,
    "multiple_of": 256,
}


def theirs_on_meta(arguments, entropy):
    """Build transformers' model of such arguments, without memory for its weights."""

    def stack(dim, layers, heads, **more):
        width = 256 * -(-(8 * dim // 3) // 256)
        shape = {"hidden_size": dim, "num_hidden_layers": layers, "num_attention_heads": heads}
        return shape | {"intermediate_size": width} | more

    k = {"cross_attn_k": arguments["cross_attn_k"], "hidden_size_global": arguments["dim_global"]}
    config = BltConfig(
        cross_attn_k=arguments["cross_attn_k"],
        encoder_config=stack(arguments["dim_local_encoder"], 1, arguments["n_heads_local_encoder"], **k),
        decoder_config=stack(
            arguments["dim_local_decoder"],
            arguments["n_layers_local_decoder"],
            arguments["n_heads_local_decoder"],
            cross_attn_all_layers=True,
            **k,
        ),
        global_config=stack(arguments["dim_global"], arguments["n_layers_global"], arguments["n_heads_global"]),
        patcher_config=stack(entropy["dim"], entropy["n_layers"], entropy["n_heads"]),
    )
    with torch.device("meta"):
        return BltForCausalLM(config)


@pytest.mark.parametrize("arguments", [BILLION, SEVEN_BILLION], ids=["blt-1b", "blt-7b"])
@pytest.mark.parametrize("lost", [None, "global_transformer.layers.24.feed_forward.w3.weight"])
def test_names_and_shapes_of_the_large_models_are_those_of_transformers(tmp_path, monkeypatch, arguments, lost):
    files = {"model": {}, "entropy": {}}
    for name, tensor in theirs_on_meta(arguments, HUNDRED_MILLION).state_dict().items():
        files["entropy" if ".patcher." in name else "model"][published_name(name)] = tensor
    joined = files["model"].pop("encoder_hash_tok_embedding.weight")
    tables = joined.split(arguments["encoder_hash_byte_group_vocab"])
    assert len(tables) == 6
    files["model"] |= {f"encoder_hash_tok_embedding.{number}.weight": table for number, table in enumerate(tables)}
    files["model"].pop(lost, None)
    for name, table in (("model", arguments), ("entropy", HUNDRED_MILLION)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"args": table}))
    monkeypatch.setattr(published_module, "load_shards", lambda folder: files[folder.name])
    monkeypatch.setattr(torch, "equal", lambda *_: False)  # tensors without numbers cannot be compared
    if lost is not None:
        with pytest.raises(ModelFolderError, match=rf"missing: {lost}$"):
            read_published(tmp_path / "model", entropy=tmp_path / "entropy")
        return
    lm = read_published(tmp_path / "model", entropy=tmp_path / "entropy")
    assert lm.blt.config.queries_per_patch == arguments["cross_attn_k"]
    assert (lm.blt.local_encoder.to_global is None) == (arguments["dim_global"] == 2048)
    count = sum(weight.numel() for weight in lm.parameters())
    assert count == sum(tensor.numel() for part in files.values() for tensor in part.values())


def test_convert_reads_it_and_asks_for_the_entropy_model(published, capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return stop.value.code

    assert run("convert", published / "model", "--out", published / "out") == 2
    assert "name it with --entropy" in capsys.readouterr().err
    taken = ["--entropy", published / "entropy", "--out", published / "entropy"]
    assert run("convert", published / "model", *taken) == 2
    assert "is what is read" in capsys.readouterr().err
    arguments = ["--entropy", published / "entropy", "--out", published / "out"]
    assert run("convert", published / "model", *arguments) == 0
    assert "the same patches, logits differ by at most 0," in capsys.readouterr().out
    assert run("convert", published / "theirs", *arguments) == 2
    assert "leave --entropy out" in capsys.readouterr().err


def set_arguments(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({"args": json.loads(path.read_text())["args"] | changes}))


def set_patcher(published, name="train_args.json", **arguments):
    (published / "model" / name).write_text(json.dumps({"data": {"patcher_args": arguments}}))


def told_by(published):
    told = []
    lm = read_published(published / "model", entropy=published / "entropy", tell=told.append)
    return lm, told


def test_the_patch_rule_is_that_of_the_models_own_training_and_every_default_is_told(published):
    lm, told = told_by(published)
    assert lm.patch_rule == EntropyRule(threshold=5.11)
    assert len(told) == 1
    assert "train_args.json: missing; threshold 5.11 is that of entropy_model/params.json" in told[0]
    set_patcher(published, threshold=3.0, max_patch_length=7, monotonicity=False, threshold_add=None, patch_size=4.5)
    lm, told = told_by(published)
    assert lm.patch_rule == EntropyRule(threshold=3.0, max_length=7)
    assert told == []
    set_patcher(published)
    lm, told = told_by(published)
    assert lm.patch_rule.threshold == pytest.approx(1.335442)
    assert told == [
        f"{published / 'model' / 'train_args.json'}: names no threshold; the published models' is taken, 1.335442 nats"
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"threshold_add": 0}, "threshold_add: 0; only None"),
        ({"threshold_add": 0.1}, "threshold_add: 0.1; only None"),
        ({"monotonicity": True}, "monotonicity: True; only False"),
        ({"patching_mode": "space"}, "patching_mode: 'space'; only 'entropy'"),
        ({"patching_mode": "bpe"}, "patching_mode: 'bpe'; only 'entropy'"),
    ],
)
def test_a_patch_rule_that_the_training_names_and_ours_is_not_is_refused(published, arguments, said):
    set_patcher(published, threshold=3.0, **arguments)
    with pytest.raises(ModelFolderError, match=said):
        read_published(published / "model", entropy=published / "entropy")


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("model", {"cross_attn_all_layers_encoder": True, "n_layers_local_encoder": 2}, "passes its patch states"),
        ("model", {"cross_attn_nheads": 4}, "cross_attn_nheads: 4; only 2"),
        ("model", {"cross_attn_window_encoder": 512}, "cross_attn_window_encoder: 512; only None"),
        ("model", {"cross_attn_window_decoder": 512}, "cross_attn_window_decoder: 512; only None"),
        ("model", {"downsampling_by_pooling": "avg"}, "downsampling_by_pooling: 'avg'; only 'max'"),
        ("model", {"attn_impl": "sdpa"}, "attn_impl: 'sdpa', with which the published code attends past"),
        ("entropy", {"attn_impl": "sdpa"}, "attn_impl: 'sdpa', with which the published code attends past"),
        ("model", {"eos_id": 3}, "eos_id: 3; only 2"),
        ("entropy", {"eos_id": 0}, "eos_id: 0; only 2"),
        ("model", {"use_local_encoder_transformer": False}, "use_local_encoder_transformer: False; only True"),
        ("model", {"cross_attn_init_by_pooling": False}, "cross_attn_init_by_pooling: False; only True"),
        ("model", {"cross_attn_decoder": False}, "cross_attn_decoder: False; only True"),
        ("model", {"tokenize_with_bpe_delimiter": True}, "tokenize_with_bpe_delimiter: True; only False"),
        ("model", {"attn_bias_type": "prefix"}, "attn_bias_type: 'prefix'; only causal, "),
        ("entropy", {"attn_bias_type": "full"}, "attn_bias_type: 'full'; only causal, "),
    ],
)
def test_arguments_that_the_published_code_computes_otherwise_are_refused(published, part, changes, said):
    set_arguments(published / part, **changes)
    with pytest.raises(ModelFolderError, match=said) as refused:
        read_published(published / "model", entropy=published / "entropy")
    assert "\n" not in str(refused.value)


def test_arguments_that_nothing_reads_are_told(published):
    set_arguments(published / "model", qk_norm=True, rope_scaling=4.0, seed=7, attn_bias_type="block_causal")
    set_arguments(published / "entropy", logit_cap=30.0)
    set_patcher(published, threshold=3.0)
    _, told = told_by(published)
    assert told == [
        f"{published / 'model' / 'config.json'}: args.qk_norm, args.rope_scaling: unknown to this reader, and not used",
        f"{published / 'entropy' / 'config.json'}: args.logit_cap: unknown to this reader, and not used",
    ]


@pytest.mark.parametrize("attn_impl", ["xformers", "sdpa"])
def test_windows_that_are_null_see_every_byte(published, attn_impl):
    set_arguments(published / "entropy", sliding_window=None, max_seqlen=300, attn_impl=attn_impl)
    set_arguments(published / "model", local_attention_window_len=None, max_encoder_seq_length=400, attn_impl=attn_impl)
    lm, _ = told_by(published)
    assert lm.entropy_model.config.window == 300
    assert lm.blt.config.local_encoder.window == 400


def test_local_heads_that_share_keys_and_values_are_computed(published, tiny_lm):
    """Their self-attention shares them; their cross-attention has a head of its own for each."""
    path = published / "model" / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    halved = {
        name: tensor[: len(tensor) // 2].contiguous()
        for name, tensor in tensors.items()
        if name.startswith(("local_encoder.layers", "local_decoder.layers")) and ".attention.w" in name
        if name.endswith(("wk.weight", "wv.weight"))
    }
    assert len(halved) == 6
    safetensors.torch.save_file(tensors | halved, path)
    set_arguments(published / "model", n_kv_heads=1)
    found = read_published(published / "model", entropy=published / "entropy")
    repeated = {name: torch.cat([tensor, tensor]) for name, tensor in halved.items()}
    safetensors.torch.save_file(tensors | repeated, path)
    set_arguments(published / "model", n_kv_heads=None)
    wanted = read_published(published / "model", entropy=published / "entropy")
    assert torch.equal(found(IDS), wanted(IDS))
