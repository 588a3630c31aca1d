"""The layout in which facebookresearch/blt publishes its models: `facebook/blt-1b`, `-7b` and `facebook/blt-entropy`.

The names are those that transformers' public conversion script reads. Model and entropy model are two folders, each of
`config.json`, with a table `args`, and `model.safetensors`; they are brought into transformers' form and read as that.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from blt.api import ByteLM
from blt.checkpoint import load_json
from blt.codec import EOS_ID, VOCABULARY_SIZE
from blt.errors import ModelFolderError
from blt.interop.accounting import Tell, log
from blt.interop.transformers_blt import from_parts, load_shards
from blt.interop.transformers_config import DEFAULT_THRESHOLD, MODEL_TYPE, whole_number
from blt.shapes import Tensor

TRAINING = "train_args.json"
"""Beside the model: the arguments that it was trained with, of which the published code takes the patch rule."""
PARAMETERS = Path("entropy_model") / "params.json"
"""Beside the model: arguments of the entropy model's own training; taken where the model's are missing."""
_SEGMENTS = {
    "attention": "self_attn",
    "feed_forward": "mlp",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "tok_embeddings": "embed_tokens",
    "cross_attn_norm_q": "q_norm",
    "cross_attn_norm_kv": "k_norm",
    "w1": "gate_proj",
    "w2": "down_proj",
    "w3": "up_proj",
    "wq": "q_proj",
    "wk": "k_proj",
    "wv": "v_proj",
    "wo": "o_proj",
    "output": "lm_head",
}
_PUBLISHED = {theirs: published for published, theirs in _SEGMENTS.items()}
_TABLE = re.compile(r"model\.encoder_hash_tok_embedding\.(\d{1,4})\.weight")
HEAD = "model.local_decoder.lm_head.weight"
_COMMON = {"norm_eps": "rms_norm_eps", "rope_theta": "rope_theta"}
_LOCAL = _COMMON | {
    "n_kv_heads": "num_key_value_heads",
    "cross_attn_k": "cross_attn_k",
    "dim_global": "hidden_size_global",
}
_FIELDS: Mapping[str, Mapping[str, str]] = {
    "encoder_config": _LOCAL
    | {
        "dim_local_encoder": "hidden_size",
        "n_layers_local_encoder": "num_hidden_layers",
        "n_heads_local_encoder": "num_attention_heads",
        "cross_attn_all_layers_encoder": "cross_attn_all_layers",
        "max_encoder_seq_length": "max_position_embeddings",
    },
    "decoder_config": _LOCAL
    | {
        "dim_local_decoder": "hidden_size",
        "n_layers_local_decoder": "num_hidden_layers",
        "n_heads_local_decoder": "num_attention_heads",
        "cross_attn_all_layers_decoder": "cross_attn_all_layers",
    },
    "global_config": _COMMON
    | {
        "dim_global": "hidden_size",
        "n_layers_global": "num_hidden_layers",
        "n_heads_global": "num_attention_heads",
        "n_kv_heads_global": "num_key_value_heads",
    },
}
_ENTROPY_FIELDS = _COMMON | {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "max_seqlen": "max_position_embeddings",
    "sliding_window": "sliding_window",
    "vocab_size": "vocab_size",
}
_ROOT_FIELDS = (
    "vocab_size",
    "cross_attn_k",
    "local_attention_window_len",
    "encoder_hash_byte_group_size",
    "encoder_hash_byte_group_vocab",
    "encoder_hash_byte_group_nb_functions",
)
_REQUIRED = (
    "dim_global",
    "dim_local_encoder",
    "dim_local_decoder",
    "n_layers_global",
    "n_layers_local_encoder",
    "n_layers_local_decoder",
    "n_heads_global",
    "n_heads_local_encoder",
    "n_heads_local_decoder",
    "cross_attn_k",
    "cross_attn_all_layers_encoder",
    "cross_attn_all_layers_decoder",
    "encoder_hash_byte_group_size",
    "encoder_hash_byte_group_vocab",
    "encoder_hash_byte_group_nb_functions",
    "norm_eps",
    "rope_theta",
)
_REQUIRED_OF_ENTROPY = ("dim", "n_layers", "n_heads", "rope_theta")
_ONLY: Mapping[str, object] = {
    "vocab_size": VOCABULARY_SIZE,
    "pm_size": 0,
    "hidden_act": "silu",
    "weight_tying": False,
    "use_rope": True,
    "eos_id": EOS_ID,
    "downsampling_by_pooling": "max",
    "cross_attn_window_encoder": None,
    "cross_attn_window_decoder": None,
    "cross_attn_encoder": True,
    "cross_attn_decoder": True,
    "cross_attn_init_by_pooling": True,
    "use_local_encoder_transformer": True,
    "encoder_enable_byte_ngrams": False,
    "encoder_ngram_to_size_str": None,
    "tokenize_with_bpe_delimiter": False,
    "entropy_model_is_ngram_model": False,
}
"""Arguments that change what is computed, with the one value that can be carried over."""
_BIASES = ("causal", "block_causal", "local_block_causal")
"""Values of `attn_bias_type`: within one document all of them attend to what came before, as the window allows."""
_WITHOUT_EFFECT = frozenset(
    {
        # of training and its speed
        *("seed", "dropout", "encoder_lm_loss", "encoder_preds_low_entropy_toks", "encoder_preds_random_toks"),
        *("recompute_fc1_out", "recompute_fc3_out", "recompute_attn", "custom_bwd", "layer_ckpt"),
        *("init_use_gaussian", "init_use_depth", "init_base_std", "init_std_factor", "alpha_depth"),
        *("sequence_parallel", "loss_parallel", "fuse_sequence_parallel", "use_fsdp", "attn_to_keep"),
        *("full_logging_n_layers", "log_patch_lengths", "patching_batch_size", "patching_device"),
        *("cross_attn_use_flex_attention",),
        # read off the weights, or off the arguments of the patcher
        *("head_dim", "multiple_of", "ffn_dim_multiplier", "output_size", "dim_token", "dim_token_emb"),
        *("dim_patch_emb", "patch_in_forward", "patch_size", "patching_mode", "patching_threshold"),
        *("patching_threshold_add", "patching_thresholds_str", "monotonicity", "max_patch_length"),
        *("entropy_model_checkpoint_dir", "encoder_enable_byte_group_hash"),
        # lengths, and precision of the positions' angles
        *("max_length", "max_seqlen", "pad_to_max_length", "rope_use_fp32_in_outer_product"),
        # of the whole, where the parts have their own
        *("dim", "n_layers", "n_heads"),
        # read by no part of the published code
        *("non_linearity", "norm_affine", "pre_norm", "norm_type", "architecture", "share_encoder_decoder_emb"),
        *("conv_kernel_size", "global_local_decoder_residual_layer", "tie_local_encoder_decoder"),
        *("tie_local_encoder_decoder_logits", "encoder_ngram_table_dir", "ngram_vocab_sizes"),
    }
)
"""Arguments that leave the outputs as they are."""
_KNOWN = frozenset().union(
    _WITHOUT_EFFECT, _ONLY, _ROOT_FIELDS, _REQUIRED, _REQUIRED_OF_ENTROPY, _ENTROPY_FIELDS, *_FIELDS.values()
) | {"attn_impl", "attn_bias_type", "cross_attn_nheads"}
_ONLY_OF_PATCHER: Mapping[str, object] = {"monotonicity": False, "threshold_add": None, "patching_mode": "entropy"}
"""Of the patcher. A `threshold_add` of 0 is no absence of one: an entropy must then also have risen."""
_MODULES = {
    "encoder_config": "local_encoder",
    "decoder_config": "local_decoder",
    "global_config": "global_transformer",
}


@dataclass(frozen=True)
class _Found:
    """A tensor, and what the file calls it."""

    name: str
    tensor: Tensor


def read_published(folder: str | Path, *, entropy: str | Path | None = None, tell: Tell = log) -> ByteLM:
    """Read a published model.

    Args:
        folder: of the model.
        entropy: folder of the entropy model; without it every byte is a patch, until the patch rule is changed.
        tell: takes a line where a default threshold is taken, since no file names one, and one of the arguments that
            nothing reads.

    Raises:
        ModelFolderError: missing, broken, pickled, or of a shape that cannot be carried over.
    """
    folder = Path(folder)
    path = folder / "config.json"
    arguments = _arguments(load_json(path), path, tell=tell)
    found: dict[str, _Found] = {}
    _rename(found, load_shards(folder), folder, prefix="model.")
    if HEAD in found:
        found["lm_head.weight"] = found.pop(HEAD)
    _join_tables(found, _num_tables(arguments, path), folder)
    _refuse_other_attention(arguments, f"{path}: args", window="local_attention_window_len")
    _refuse_other_cross_attention(arguments, f"{path}: args")
    config = _model_config(arguments, with_entropy=entropy is not None)
    for name, module in _MODULES.items():
        config[name] |= _width(found, f"model.{module}.layers.0.mlp.gate_proj.weight")
    if entropy is not None:
        config |= _patching(folder, Path(entropy), tell=tell)
        _rename(found, load_shards(Path(entropy)), Path(entropy), prefix="model.patcher.")
        config["patcher_config"] |= _width(found, "model.patcher.layers.0.mlp.gate_proj.weight")
    names = {theirs: one.name for theirs, one in found.items()}
    tensors = {theirs: one.tensor for theirs, one in found.items()}
    return from_parts(config, tensors, path, called=lambda name: names.get(name) or published_name(name))


def published_name(name: str) -> str:
    """Return the published name of a tensor of transformers; the entropy model's lies in a folder of its own."""
    if name == "lm_head.weight":
        name = HEAD
    is_entropy = name.startswith("model.patcher.")
    segments = name.removeprefix("model.").removeprefix("patcher.").split(".")
    written = ".".join(_PUBLISHED.get(segment, segment) for segment in segments)
    return f"{written} of the entropy model" if is_entropy else written


def _arguments(
    values: Mapping[str, Any], path: Path, *, tell: Tell, required: Sequence[str] = _REQUIRED
) -> Mapping[str, Any]:
    """Find the arguments of a model, or of the entropy model, in its `config.json`, none missing that is needed."""
    arguments = values.get("args", values.get("entropy_model"))
    if not isinstance(arguments, Mapping):
        raise ModelFolderError(f"{path}: expected a table 'args', as published models have it")
    lacking = [key for key in required if arguments.get(key) is None]
    if lacking:
        more = f", and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise ModelFolderError(f"{path}: args.{lacking[0]}: missing{more}; copy or download the file again")
    _refuse_others(arguments, _ONLY, f"{path}: args")
    bias = arguments.get("attn_bias_type")
    if bias is not None and bias not in _BIASES:
        raise ModelFolderError(f"{path}: args.attn_bias_type: {bias!r}; only {', '.join(_BIASES)} can be carried over")
    unknown = sorted(set(map(str, arguments)) - _KNOWN)
    if unknown:
        tell(f"{path}: args.{', args.'.join(unknown)[:400]}: unknown to this reader, and not used")
    return arguments


def _refuse_others(arguments: Mapping[str, Any], only: Mapping[str, object], where: str) -> None:
    """Refuse an argument that would change the outputs in a way that this package cannot."""
    for key, allowed in only.items():
        if arguments.get(key) not in (None, allowed):
            raise ModelFolderError(f"{where}.{key}: {arguments[key]!r}; only {allowed!r} can be carried over")


def _refuse_other_attention(arguments: Mapping[str, Any], where: str, *, window: str) -> None:
    """Refuse an implementation of attention that drops the window without a word."""
    if arguments.get("attn_impl") == "sdpa" and arguments.get(window) is not None:
        raise ModelFolderError(
            f"{where}.attn_impl: 'sdpa', with which the published code attends past {window} "
            f"({arguments[window]!r}); set one of them to null"
        )


def _refuse_other_cross_attention(arguments: Mapping[str, Any], where: str) -> None:
    """Refuse cross-attentions of other shapes than ours have."""
    heads = arguments.get("cross_attn_nheads")
    for side in ("encoder", "decoder"):
        local = arguments[f"n_heads_local_{side}"]
        if heads not in (None, local):
            raise ModelFolderError(
                f"{where}.cross_attn_nheads: {heads!r}; only {local!r}, as n_heads_local_{side}, can be carried over"
            )
    layers = arguments["n_layers_local_encoder"]
    if arguments["cross_attn_all_layers_encoder"] and layers != 1:
        raise ModelFolderError(
            f"{where}.cross_attn_all_layers_encoder: true with {layers!r} layers, where each passes its patch states "
            "on to the next; only false, or 1 layer, can be carried over"
        )


def _model_config(arguments: Mapping[str, Any], *, with_entropy: bool) -> dict[str, Any]:
    """Return the arguments of the model under the names that transformers uses."""
    config: dict[str, Any] = {"model_type": MODEL_TYPE, "patch_in_forward": with_entropy}
    config |= {key: arguments[key] for key in _ROOT_FIELDS if arguments.get(key) is not None}
    config["local_attention_window_len"] = arguments.get("local_attention_window_len")  # null: all bytes, no default
    return config | {name: _stack(arguments, fields) for name, fields in _FIELDS.items()}


def _patching(folder: Path, entropy: Path, *, tell: Tell) -> dict[str, Any]:
    """Find the shape of the entropy model, and the patch rule that the model was trained with."""
    path = entropy / "config.json"
    arguments = _arguments(load_json(path), path, tell=tell, required=_REQUIRED_OF_ENTROPY)
    _refuse_other_attention(arguments, f"{path}: args", window="sliding_window")
    window = {"sliding_window": arguments.get("sliding_window")}  # null: all bytes, no default
    found: dict[str, Any] = {"patcher_config": _stack(arguments, _ENTROPY_FIELDS) | window}
    path = next((folder / name for name in (TRAINING, PARAMETERS) if (folder / name).is_file()), folder / TRAINING)
    patcher = _patcher_arguments(path) if path.is_file() else {}
    if patcher.get("threshold") is None:
        tell(f"{path}: names no threshold; the published models' is taken, {DEFAULT_THRESHOLD:.6f} nats")
    elif path == folder / PARAMETERS:
        tell(f"{folder / TRAINING}: missing; threshold {patcher['threshold']!r} is that of {PARAMETERS}")
    names = {"threshold": "patching_threshold", "max_patch_length": "max_patch_length"}
    return found | {theirs: patcher[key] for key, theirs in names.items() if patcher.get(key) is not None}


def _patcher_arguments(path: Path) -> Mapping[str, Any]:
    """Read the arguments of the patcher, none of which changes patches in a way that cannot be carried over."""
    data = load_json(path).get("data", {})
    patcher = data.get("patcher_args", {}) if isinstance(data, Mapping) else {}
    if not isinstance(patcher, Mapping):
        raise ModelFolderError(f"{path}: data.patcher_args: expected a table of keys")
    _refuse_others(patcher, _ONLY_OF_PATCHER, f"{path}: data.patcher_args")
    return patcher


def _stack(arguments: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    return {theirs: arguments[key] for key, theirs in fields.items() if arguments.get(key) is not None}


def _width(found: Mapping[str, _Found], name: str) -> dict[str, int]:
    """Read the feed-forward width off the weights: the arguments only say what it is rounded to."""
    return {"intermediate_size": len(found[name].tensor)} if name in found and found[name].tensor.dim() else {}


def _rename(found: dict[str, _Found], tensors: Mapping[str, Tensor], folder: Path, *, prefix: str) -> None:
    """Put the tensors of a folder among those found, by transformers' names."""
    for name, tensor in tensors.items():
        theirs = prefix + ".".join(_SEGMENTS.get(segment, segment) for segment in name.split("."))
        if theirs in found:
            raise ModelFolderError(f"{folder}: {found[theirs].name} and {name} are two names of one tensor")
        found[theirs] = _Found(name, tensor)


def _num_tables(arguments: Mapping[str, Any], path: Path) -> int:
    sizes, functions = (arguments[f"encoder_hash_byte_group_{key}"] for key in ("size", "nb_functions"))
    if not isinstance(sizes, list):
        raise ModelFolderError(f"{path}: args.encoder_hash_byte_group_size: expected a list, found {sizes!r}")
    return len(sizes) * whole_number(functions, where=f"{path}: args.encoder_hash_byte_group_nb_functions")


def _join_tables(found: dict[str, _Found], count: int, folder: Path) -> None:
    """Join the n-gram tables, function by function and n by n; a table too many is left where it is."""
    tables = {int(match[1]): name for name in found if (match := _TABLE.fullmatch(name))}
    lacking = [number for number in range(min(count, len(found) + 1)) if number not in tables]
    if lacking:
        raise ModelFolderError(
            f"{folder}: encoder_hash_tok_embedding.{lacking[0]}.weight is missing; config.json speaks of {count} tables"
        )
    in_order = [found.pop(tables[number]).tensor for number in range(count)]
    if any(table.dim() != 2 or table.shape != in_order[0].shape for table in in_order):
        raise ModelFolderError(f"{folder}: the tables of encoder_hash_tok_embedding are not of one shape")
    if in_order:
        name = "encoder_hash_tok_embedding.*.weight"
        found["model.encoder_hash_tok_embedding.weight"] = _Found(name, torch.cat(in_order))
