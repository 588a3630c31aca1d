"""The `config.json` of a transformers `BltForCausalLM` ⇄ `LMConfig`.

transformers leaves out of the file what has its default, so the defaults are repeated here. A field that would change
the outputs in a way that this package cannot is refused, never ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from blt.codec import BOS_ID, EOS_ID, VOCABULARY_SIZE
from blt.configuration import from_dict, tag_of
from blt.errors import ConfigurationError, ModelFolderError
from blt.interop.accounting import Arguments, Tell
from blt.lm import LMConfig
from blt.nn import LocalConfig, TransformerConfig
from blt.patching import ByteRule, EntropyRule

MODEL_TYPE = "blt"
DEFAULT_THRESHOLD = 1.335442066192627
"""Nats; the released models were trained with it."""
UNUSED_PATCH_SIZE = 4
"""transformers wants a patch size in entropy mode, and does not look at its value."""

_ROOT = {
    "vocab_size": VOCABULARY_SIZE,
    "patch_in_forward": True,
    "patch_size": UNUSED_PATCH_SIZE,
    "patching_mode": "entropy",
    "patching_threshold": DEFAULT_THRESHOLD,
    "max_patch_length": None,
    "local_attention_window_len": 512,
    "cross_attn_k": 2,
    "encoder_hash_byte_group_size": [3, 4, 5, 6, 7, 8],
    "encoder_hash_byte_group_vocab": 500002,
    "encoder_hash_byte_group_nb_functions": 1,
    "tie_word_embeddings": False,
}
_STACK = {"rms_norm_eps": 1e-5, "hidden_act": "silu", "num_key_value_heads": None}
_STACKS: Mapping[str, Mapping[str, Any]] = {
    "encoder_config": {
        **_STACK,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_hidden_layers": 1,
        "intermediate_size": None,
        "max_position_embeddings": 24576,
        "cross_attn_all_layers": False,
        "cross_attn_k": 2,
        "rope_theta": 500000.0,
        "vocab_size": VOCABULARY_SIZE,
    },
    "decoder_config": {
        **_STACK,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_hidden_layers": 9,
        "intermediate_size": 2816,
        "max_position_embeddings": 24576,
        "cross_attn_all_layers": True,
        "cross_attn_k": 2,
        "hidden_size_global": 2048,
        "rope_theta": 500000.0,
    },
    "global_config": {
        **_STACK,
        "hidden_size": 2048,
        "num_attention_heads": 16,
        "num_hidden_layers": 25,
        "intermediate_size": 5632,
        "rope_theta": 500000.0,
    },
    "patcher_config": {
        **_STACK,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_hidden_layers": 14,
        "intermediate_size": 2048,
        "max_position_embeddings": 8192,
        "sliding_window": 512,
        "rope_theta": 10000.0,
        "vocab_size": VOCABULARY_SIZE,
    },
}
_OFFERED = (
    *("architectures", "_name_or_path", "dtype", "torch_dtype", "transformers_version", "model_type", "use_cache"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "boe_token_id", "initializer_range", "dropout", "head_dim"),
    *(
        "attention_dropout",
        "patching_batch_size",
        "patching_device",
        "monotonicity",
        "realtime_patching",
        "patcher_args",
    ),
    *("return_dict", "output_attentions", "output_hidden_states", "id2label", "label2id", "problem_type"),
    *("chunk_size_feed_forward", "is_encoder_decoder", "rope_parameters", "rope_scaling", "rope_theta"),
    *("max_position_embeddings", "freqs_dim", "intermediate_size", "num_key_value_heads", "partial_rotary_factor"),
    *("hidden_size_global", "pm_size", "full_attention", "sliding_window", "num_attention_heads", "encoder_seq_len"),
    *("vocab_size", "cross_attn_k", "encoder_cross_output_size"),
)
"""What transformers writes too, and what changes no outputs there or is looked at by `Stack`."""


def account_for_arguments(values: Mapping[str, Any], path: Path, *, tell: Tell) -> None:
    """Report the arguments of a `config.json` that are not known or not made use of.

    Raises:
        ModelFolderError: weights that are quantised.
    """
    root = Arguments(used=(*_ROOT, *_STACKS), only={"quantization_config": ()}, inert=_OFFERED)
    root.account(values, where=f"{path}: config", tell=tell)
    for name, defaults in _STACKS.items():
        table = values.get(name)
        if isinstance(table, Mapping):
            Arguments(used=tuple(defaults), inert=_OFFERED).account(table, where=f"{path}: {name}", tell=tell)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The layout of weights that a `config.json` of transformers states, beyond the shape of a model."""

    key_value_heads: Mapping[str, int]
    """By module of ours: heads of keys and values, each shared by several heads of queries."""
    encoder_cross_attention: int
    """Number of the encoder's cross-attention whose result is used.

    Where there is one after every layer, each overwrites what those before it have found, so only the last matters.
    """


class Stack:
    """One stack's table of a `config.json`, with defaults for what is left out."""

    def __init__(self, values: Mapping[str, Any], name: str, path: Path) -> None:
        """Args: values: of the whole file; name: of the table; path: of the file, for messages."""
        table = values.get(name)
        if table is None:
            table = {}
        if not isinstance(table, Mapping):
            raise ModelFolderError(f"{path}: {name}: expected a table of keys, found {type(table).__name__}")
        self.values = {**_STACKS[name], **table}
        self.name, self.path = name, path
        self.refuse("hidden_act", allowed="silu")

    def integer(self, key: str) -> int:
        """Return a whole number of at least 1."""
        return whole_number(self.values[key], where=f"{self.path}: {self.name}.{key}")

    def refuse(self, key: str, *, allowed: object) -> None:
        """Refuse any value but one."""
        found = self.values.get(key, allowed)
        if found != allowed:
            raise ModelFolderError(f"{self.path}: {self.name}.{key}: {found!r}; only {allowed!r} can be carried over")

    @property
    def num_key_value_heads(self) -> int:
        """Heads of keys and values; as many as of queries by default."""
        num_heads = self.integer("num_attention_heads")
        shared = self.integer("num_key_value_heads") if self.values["num_key_value_heads"] else num_heads
        if num_heads % shared:
            raise ModelFolderError(
                f"{self.path}: {self.name}.num_key_value_heads: {shared} does not divide {num_heads} attention heads"
            )
        return shared

    @property
    def rope_theta(self) -> Any:
        """Base of RoPE, in the newer form or the older."""
        parameters = self.values.get("rope_scaling") or self.values.get("rope_parameters") or {}
        if not isinstance(parameters, Mapping):
            raise ModelFolderError(f"{self.path}: {self.name}.rope_parameters: expected a table, found {parameters!r}")
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        partial = parameters.get("partial_rotary_factor", self.values.get("partial_rotary_factor"))
        if kind != "default" or partial not in (None, 1, 1.0):
            raise ModelFolderError(
                f"{self.path}: {self.name}: RoPE of type {kind!r}, partial factor {partial!r}; "
                "only plain RoPE can be carried over"
            )
        return parameters.get("rope_theta", self.values["rope_theta"])

    def shape(self) -> dict[str, Any]:
        """Return the fields of a `TransformerConfig`."""
        width = self.values["intermediate_size"]
        hidden = 8 * self.integer("hidden_size") // 3 if width in (None, 0) else self.integer("intermediate_size")
        return {
            "dim": self.integer("hidden_size"),
            "num_layers": self.integer("num_hidden_layers"),
            "num_heads": self.integer("num_attention_heads"),
            "feed_forward_dim": hidden,
            "norm_epsilon": self.values["rms_norm_eps"],
        }


def whole_number(value: Any, *, where: str) -> int:
    """Return a value that is a whole number of at least 1.

    Raises:
        ModelFolderError: it is none.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ModelFolderError(f"{where}: expected a whole number of at least 1, found {value!r}")


def read_lm_config(values: Mapping[str, Any], path: Path) -> LMConfig:
    """Turn a `config.json` of transformers into the shape of a model of ours.

    Raises:
        ModelFolderError: another kind of model, a field that cannot be, or one that cannot be carried over.
    """
    if values.get("model_type") != MODEL_TYPE:
        raise ModelFolderError(f"{path}: model_type {values.get('model_type')!r} is not {MODEL_TYPE!r}")
    root = {**_ROOT, **values}
    encoder, decoder, latent = (Stack(values, f"{name}_config", path) for name in ("encoder", "decoder", "global"))
    _check_agreement(root, encoder, decoder, latent, path)
    window = root["local_attention_window_len"]
    config: dict[str, Any] = {
        "blt": {
            "local_encoder": encoder.shape() | {"window": _window(window, encoder)},
            "global_transformer": latent.shape(),
            "local_decoder": decoder.shape() | {"window": _window(window, encoder)},
            "hash_embedding": {
                "ngram_sizes": root["encoder_hash_byte_group_size"] or _ROOT["encoder_hash_byte_group_size"],
                "num_rows": root["encoder_hash_byte_group_vocab"],
                "num_functions": root["encoder_hash_byte_group_nb_functions"],
            },
            "queries_per_patch": root["cross_attn_k"],
            "decoder_cross_attention": "every" if decoder.values["cross_attn_all_layers"] else "first",
            "cross_attention_residual": "twice",
            "tie_embeddings": root["tie_word_embeddings"],
            "rope_theta": latent.rope_theta,
        },
        "patch_rule": _patch_rule(root, path),
    }
    if root["patch_in_forward"]:
        patcher = Stack(values, "patcher_config", path)
        patcher.refuse("vocab_size", allowed=VOCABULARY_SIZE)
        shape = patcher.shape() | {"window": _window(patcher.values["sliding_window"], patcher)}
        config["entropy_model"] = shape | {"rope_theta": patcher.rope_theta, "tie_embeddings": False}
    try:
        return cast(LMConfig, from_dict(LMConfig, config))
    except ConfigurationError as error:
        raise ModelFolderError(f"{path}: {error} (in the words of blt)") from None


def read_layout(values: Mapping[str, Any], path: Path) -> Layout:
    """Return the layout of the weights that a `config.json` of transformers describes.

    Raises:
        ModelFolderError: a field that cannot be.
    """
    encoder = Stack(values, "encoder_config", path)
    return Layout(
        key_value_heads={
            module: Stack(values, name, path).num_key_value_heads
            for module, name in {
                "blt.local_encoder": "encoder_config",
                "blt.global_transformer": "global_config",
                "blt.local_decoder": "decoder_config",
                "entropy_model": "patcher_config",
            }.items()
        },
        encoder_cross_attention=encoder.integer("num_hidden_layers") - 1
        if encoder.values["cross_attn_all_layers"]
        else 0,
    )


def _check_agreement(root: Mapping[str, Any], encoder: Stack, decoder: Stack, latent: Stack, path: Path) -> None:
    """Refuse tables that contradict one another: transformers builds such models, and cannot run them."""
    if root["vocab_size"] != VOCABULARY_SIZE:
        raise ModelFolderError(
            f"{path}: vocab_size: {root['vocab_size']!r}; only {VOCABULARY_SIZE} can be carried over"
        )
    encoder.refuse("vocab_size", allowed=VOCABULARY_SIZE)
    for stack in (encoder, decoder):
        stack.refuse("cross_attn_k", allowed=root["cross_attn_k"])
        if stack.rope_theta != latent.rope_theta:
            raise ModelFolderError(
                f"{path}: {stack.name} has rope_theta {stack.rope_theta!r}, global_config {latent.rope_theta!r}; "
                "only one for all three can be carried over"
            )
    decoder.refuse("hidden_size_global", allowed=latent.values["hidden_size"])


def _window(window: Any, stack: Stack) -> Any:
    """Return the window; one of all positions where attention is not windowed."""
    return stack.integer("max_position_embeddings") if window is None else window


def _patch_rule(root: Mapping[str, Any], path: Path) -> dict[str, Any]:
    if root["patching_mode"] != "entropy" or not root["patch_in_forward"]:
        return {"type": "byte"}  # what transformers does in every other mode
    if root["patch_size"] is None:
        raise ModelFolderError(
            f"{path}: patch_size: null makes patches of one byte, of which the last is never read; "
            "set patching_mode to 'byte' if that is meant"
        )
    return {"type": "entropy", "threshold": root["patching_threshold"], "max_length": root["max_patch_length"]}


def write_config(config: LMConfig) -> dict[str, Any]:
    """Turn the shape of a model of ours, with the residual of transformers, into a `config.json` of transformers.

    Raises:
        ConfigurationError: a patch rule that transformers has not.
    """
    blt, rule, hashing = config.blt, config.patch_rule, config.blt.hash_embedding
    assert blt.cross_attention_residual == "twice"
    if not isinstance(rule, EntropyRule | ByteRule):
        raise ConfigurationError(
            f"patch_rule: transformers has no rule {tag_of(rule)!r}, only 'entropy' and 'byte'; "
            "calibrate one with: blt calibrate --rule entropy"
        )
    is_entropy = isinstance(rule, EntropyRule)
    encoder, decoder, entropy = blt.local_encoder, blt.local_decoder, config.entropy_model
    local = {"cross_attn_k": blt.queries_per_patch, "hidden_size_global": blt.global_transformer.dim}
    values = {
        "architectures": ["BltForCausalLM"],
        "model_type": MODEL_TYPE,
        "vocab_size": VOCABULARY_SIZE,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "use_cache": False,
        "tie_word_embeddings": blt.tie_embeddings,
        "patch_in_forward": entropy is not None,
        "patching_mode": "entropy" if is_entropy else "byte",
        "patch_size": UNUSED_PATCH_SIZE,
        "patching_threshold": rule.threshold if isinstance(rule, EntropyRule) else 0.0,
        "max_patch_length": rule.max_length if is_entropy else None,
        "local_attention_window_len": max(encoder.window, decoder.window),
        "cross_attn_k": blt.queries_per_patch,
        "encoder_hash_byte_group_size": list(hashing.ngram_sizes),
        "encoder_hash_byte_group_vocab": hashing.num_rows,
        "encoder_hash_byte_group_nb_functions": hashing.num_functions,
        "encoder_config": _table(encoder, blt.rope_theta) | local | {"cross_attn_all_layers": False},
        "global_config": _table(blt.global_transformer, blt.rope_theta),
        "decoder_config": _table(decoder, blt.rope_theta)
        | local
        | {"cross_attn_all_layers": blt.decoder_cross_attention == "every"},
    }
    if entropy is not None:
        values["patcher_config"] = _table(entropy, entropy.rope_theta) | {"sliding_window": entropy.window}
    return values


def _table(shape: TransformerConfig, rope_theta: float) -> dict[str, Any]:
    table: dict[str, Any] = {
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_heads,
        "intermediate_size": shape.feed_forward_width,
        "rms_norm_eps": shape.norm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": rope_theta},
    }
    if isinstance(shape, LocalConfig):
        table["max_position_embeddings"] = max(24576, shape.window)
    return table
