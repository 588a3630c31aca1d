"""A pretrained Transformer of the Llama architecture, as weights for a stack of `blt.nn.Transformer`.

Read from a transformers folder (`config.json` and safetensors) or from a GGUF file. The layers of both are the same:
pre-RMSNorm, RoPE, SwiGLU, no biases. Two layouts differ:

- Llama lets several heads of queries share a head of keys and values. Here each gets a copy: rows of the key and value
  projections are repeated. That is exact, costs a few weights, and lets the copies part ways in training.
- GGUF files hold the rows of query and key projections for a RoPE that turns neighbouring numbers of a head; they are
  put back to turn (i, i + half), as transformers and `blt.nn` do.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blt.checkpoint import PICKLE_SUFFIXES, load_json, require_floating_point, require_names
from blt.errors import ConfigurationError, ModelFolderError
from blt.interop.accounting import Arguments
from blt.interop.gguf_file import GGUFFile, read_gguf
from blt.interop.transformers_blt import load_shards
from blt.nn import RowInputs, Transformer, TransformerConfig
from blt.ops import run_positions
from blt.shapes import Float, Int, Tensor

_LAYER = {
    "attention_norm": ("input_layernorm", "attn_norm"),
    "attention.query": ("self_attn.q_proj", "attn_q"),
    "attention.key": ("self_attn.k_proj", "attn_k"),
    "attention.value": ("self_attn.v_proj", "attn_v"),
    "attention.output": ("self_attn.o_proj", "attn_output"),
    "feed_forward_norm": ("post_attention_layernorm", "ffn_norm"),
    "feed_forward.gate": ("mlp.gate_proj", "ffn_gate"),
    "feed_forward.up": ("mlp.up_proj", "ffn_up"),
    "feed_forward.down": ("mlp.down_proj", "ffn_down"),
}
"""Ours → transformers' and llama.cpp's."""
_ENDS = {
    "embedding": ("model.embed_tokens", "token_embd"),
    "norm": ("model.norm", "output_norm"),
    "output": ("lm_head", "output"),
}
_FIELDS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "intermediate_size": "feed_forward_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "head_dim": "attention.key_length",
}
"""transformers' → llama.cpp's."""
_DEFAULTS: dict[str, Any] = {"rope_theta": 10000.0, "rms_norm_eps": 1e-6}
_ARGUMENTS = Arguments(
    used=(*_FIELDS, "model_type", "rope_parameters", "rope_scaling", "tie_word_embeddings"),
    only={
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "hidden_act": ("silu",),
        "sliding_window": (),
        "use_sliding_window": (False,),
        "partial_rotary_factor": (1, 1.0),
        "quantization_config": (),
        "attention_sinks": (0,),
    },
    inert=(
        *("architectures", "_name_or_path", "dtype", "torch_dtype", "transformers_version", "transformers.js_config"),
        *("vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id", "use_cache"),
        *("initializer_range", "attention_dropout", "pretraining_tp", "rope_interleaved", "is_llama_config"),
    ),
)
"""Of `config.json`. `pretraining_tp` only changes the order of sums."""
_GGUF_ARGUMENTS = Arguments(
    used=(*_FIELDS.values(), "rope.scaling.type"),
    only={"attention.sliding_window": (0,), "expert_count": (0,)},
    inert=("context_length", "vocab_size", "expert_used_count", "rope.scaling.original_context_length"),
)
"""Of the fields `llama.*`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Llama:
    """A pretrained Transformer."""

    shape: TransformerConfig
    """Of its layers, with a head of keys and values for every head of queries."""
    rope_theta: float
    """Base of RoPE."""
    layers: dict[str, Tensor]
    """The state of a `blt.nn.Transformer` of that shape, float32."""
    embedding: Float[Tensor, "V D"]
    """One row per token."""
    norm: Float[Tensor, " D"]
    """The weight of the norm after the last layer."""
    output: Float[Tensor, "V D"]
    """Output matrix; the embedding where they are tied."""
    notes: tuple[str, ...] = ()
    """What could not be carried over."""

    @torch.no_grad()
    def token_logits(self, token_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Run it as the token model that it was, on `blt.nn`: what shows that it was read right."""
        with torch.device("meta"):
            stack = Transformer(self.shape, theta=self.rope_theta)
        stack.load_state_dict(self.layers, assign=True)
        segments = torch.zeros_like(token_ids)
        states = stack(self.embedding[token_ids], RowInputs(segments, run_positions(segments)))
        normed = nn.functional.rms_norm(states, (self.shape.dim,), self.norm, self.shape.norm_epsilon)
        return normed @ self.output.T


def read_llama(source: str | Path) -> Llama:
    """Read a pretrained Transformer.

    Args:
        source: a folder of transformers, a GGUF file, or a folder with one GGUF file.

    Raises:
        ModelFolderError: missing, broken, pickled, or of another architecture.
        MissingExtraError: a GGUF file, and the package `gguf` is not installed.
    """
    path = Path(source)
    if path.suffix in PICKLE_SUFFIXES and path.is_file():
        raise ModelFolderError(f"{path}: pickled weights are never loaded; convert them to safetensors or GGUF")
    if path.is_dir() and not (path / "config.json").is_file():
        files = sorted(path.glob("*.gguf"))
        if len(files) != 1:
            raise ModelFolderError(f"{path}: has no config.json, and {len(files)} GGUF files; name one file")
        path = files[0]
    if path.is_dir():
        return _from_transformers(path)
    if not path.is_file():
        raise ModelFolderError(f"{source}: no such folder or file")
    return _from_gguf(read_gguf(path))


def _from_transformers(folder: Path) -> Llama:
    path = folder / "config.json"
    values = load_json(path)
    if values.get("model_type") != "llama":
        raise ModelFolderError(f"{path}: model_type {values.get('model_type')!r} is not 'llama'")
    notes: list[str] = []
    _ARGUMENTS.account(values, where=f"{path}: config", tell=notes.append)
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise ModelFolderError(f"{path}: rope_parameters: expected a table of keys, got {rope!r}")
    if rope.get("partial_rotary_factor", 1) != 1:
        raise ModelFolderError(f"{path}: partial_rotary_factor: {rope['partial_rotary_factor']!r}; only 1 can be")
    values = {"rope_theta": rope["rope_theta"]} | values if "rope_theta" in rope else values
    scaling = rope.get("rope_type", rope.get("type", "default"))
    tensors = load_shards(folder)
    table = _table(values, path, column=0, num_tensors=len(tensors))
    notes += _account_for_tensors(tensors, table, path, prefix="model.layers.")
    if values.get("tie_word_embeddings") and table["output.weight"] in tensors:
        tensors.pop(table["output.weight"])  # transformers then takes the embedding, whatever the file holds
    return _joined(values, tensors, table, path, scaling=str(scaling), notes=notes)


def _from_gguf(file: GGUFFile) -> Llama:
    architecture = file.fields.get("general.architecture")
    if architecture != "llama":
        raise ModelFolderError(f"{file.path}: architecture {architecture!r} is not 'llama'")
    values = {theirs: file.fields.get(f"llama.{name}") for theirs, name in _FIELDS.items()}
    values = {key: value for key, value in values.items() if value is not None}
    heads = values.get("num_attention_heads")
    shared = values.get("num_key_value_heads", heads)
    notes = _account_for_fields(file)
    table = _table(values, file.path, column=1, num_tensors=len(file.names))
    notes += _account_for_tensors(file.names, table, file.path, prefix="blk.")
    wanted = {theirs for theirs in table.values() if theirs in file.names}
    tensors = {theirs: file.tensor(theirs) for theirs in wanted}
    for ours, theirs in table.items():
        if ours.endswith(("attention.query.weight", "attention.key.weight")) and theirs in tensors:
            count = heads if "query" in ours else shared
            tensors[theirs] = _halves(tensors[theirs], count, name=theirs, path=file.path)
    scaling = file.fields.get("llama.rope.scaling.type", "none")
    scaling = "llama3" if "rope_freqs.weight" in file.names else scaling
    scaling = f"linear, {linear:g}" if (linear := file.fields.get("llama.rope.scale_linear", 1)) != 1 else scaling
    return _joined(values, tensors, table, file.path, scaling=str(scaling), notes=notes)


def _account_for_fields(file: GGUFFile) -> list[str]:
    """Refuse fields that change the outputs otherwise than can be carried over; return what is to be told."""
    notes: list[str] = []
    fields = {name.removeprefix("llama."): value for name, value in file.fields.items() if name.startswith("llama.")}
    dim, heads = fields.get("embedding_length"), fields.get("attention.head_count")
    if isinstance(dim, int) and isinstance(heads, int) and heads > 0:
        for name in ("rope.dimension_count", "attention.value_length"):
            if (width := fields.pop(name, dim // heads)) != dim // heads:
                raise ModelFolderError(f"{file.path}: llama.{name}: {width!r}; only {dim // heads}, as wide as a head")
    scaling = ("rope.scale_linear", "rope.scaling.factor", "rope.scaling.attn_factor", "rope.scaling.finetuned")
    rest = {name: value for name, value in fields.items() if name not in scaling}  # told with the kind of scaling
    _GGUF_ARGUMENTS.account(rest, where=f"{file.path}: llama", tell=notes.append)
    return notes


def _account_for_tensors(names: Collection[str], table: Mapping[str, str], path: Path, *, prefix: str) -> list[str]:
    """Refuse tensors that are missing or left over; return a note where layers are left out."""
    count = 1 + max(int(ours.split(".")[1]) for ours in table if ours.startswith("layers."))
    deeper = {name for name in names if _layer_of(name, prefix) >= count}
    frequencies = {name for name in names if name.endswith(".rotary_emb.inv_freq") or name == "rope_freqs.weight"}
    needed = set(table.values()) - {table["output.weight"]}  # which may be the embedding
    require_names(names, needed, where=path, unused={*deeper, *frequencies, table["output.weight"]})
    num_deeper = len({_layer_of(name, prefix) for name in deeper})
    return [f"{path}: speaks of {count} layers; the {num_deeper} after them are left out"] if deeper else []


def _layer_of(name: str, prefix: str) -> int:
    index = name.removeprefix(prefix).partition(".")[0]
    return int(index) if name.startswith(prefix) and index.isdecimal() and len(index) < 10 else -1


def _table(values: Mapping[str, Any], path: Path, *, column: int, num_tensors: int) -> dict[str, str]:
    """Return the file's name of every tensor, by ours."""
    count = _integer(values, "num_hidden_layers", path)
    if count > num_tensors:
        raise ModelFolderError(f"{path}: speaks of {count:,} layers, and holds {num_tensors:,} tensors")
    prefix = ("model.layers", "blk")[column]
    table = {ours: names[column] for ours, names in _ENDS.items()}
    for index in range(count):
        table |= {f"layers.{index}.{ours}": f"{prefix}.{index}.{names[column]}" for ours, names in _LAYER.items()}
    return {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in table.items()}


def _joined(
    values: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    table: Mapping[str, str],
    path: Path,
    *,
    scaling: str,
    notes: Sequence[str],
) -> Llama:
    """Check a file's configuration against its tensors, and repeat shared heads."""
    heads = _integer(values, "num_attention_heads", path)
    shared = _integer(values, "num_key_value_heads", path) if values.get("num_key_value_heads") else heads
    dim = _integer(values, "hidden_size", path)
    if heads % shared or dim % heads or values.get("head_dim", dim // heads) not in (None, dim // heads):
        raise ModelFolderError(
            f"{path}: width {dim}, {heads} heads, {shared} of keys and values, heads {values.get('head_dim')} wide; "
            "expected heads that divide the width, and heads of keys and values that divide the heads"
        )
    try:
        shape = TransformerConfig(
            dim=dim,
            num_layers=_integer(values, "num_hidden_layers", path),
            num_heads=heads,
            feed_forward_dim=_integer(values, "intermediate_size", path),
            norm_epsilon=_number(values, "rms_norm_eps", path),
        )
    except ConfigurationError as error:
        raise ModelFolderError(f"{path}: {error}") from None
    for theirs in table.values():
        if theirs in tensors:
            require_floating_point(tensors[theirs].dtype, theirs, where=path)
    found = {ours: tensors[theirs].float() for ours, theirs in table.items() if theirs in tensors}
    found.setdefault("output.weight", found.get("embedding.weight", torch.zeros(0)))
    for name in ("key", "value"):
        for index in range(shape.num_layers):
            place = f"layers.{index}.attention.{name}.weight"
            if place in found and len(found[place]) == dim // heads * shared:
                per_head = found[place].view(shared, -1, dim)  # S E D
                found[place] = per_head.repeat_interleave(heads // shared, dim=0).flatten(0, 1)  # D D
    _check_shapes(found, table, shape, path)
    left_out = [] if scaling in ("none", "default") else [f"its scaling of RoPE ({scaling}) is left out"]
    return Llama(
        shape=shape,
        rope_theta=_number(values, "rope_theta", path),
        layers={name: tensor for name, tensor in found.items() if name.startswith("layers.")},
        embedding=found["embedding.weight"],
        norm=found["norm.weight"],
        output=found["output.weight"],
        notes=(*left_out, *notes),
    )


def _check_shapes(found: Mapping[str, Tensor], table: Mapping[str, str], shape: TransformerConfig, path: Path) -> None:
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in Transformer(shape, theta=10_000.0).state_dict().items()}
    rows = found["embedding.weight"].shape[:1] if "embedding.weight" in found else torch.Size([0])
    wanted |= {"embedding.weight": torch.Size([*rows, shape.dim]), "norm.weight": torch.Size([shape.dim])}
    wanted |= {"output.weight": wanted["embedding.weight"]}
    for name, expected in wanted.items():
        if found[name].shape != expected:
            raise ModelFolderError(
                f"{path}: {table[name]} has shape {tuple(found[name].shape)}, expected {tuple(expected)}"
            )


def _halves(weight: Float[Tensor, "*shape"], num_heads: Any, *, name: str, path: Path) -> Float[Tensor, "*shape"]:
    """Undo llama.cpp's order of rows: neighbours of a head (2i, 2i + 1) go back to (i, i + half)."""
    if not isinstance(num_heads, int) or num_heads < 1 or weight.dim() != 2 or len(weight) % (2 * num_heads):
        raise ModelFolderError(f"{path}: {name} of shape {tuple(weight.shape)} does not divide into {num_heads} heads")
    pairs = weight.view(num_heads, -1, 2, weight.shape[1])  # H E/2 2 D
    return pairs.transpose(1, 2).flatten(0, 2)


def _integer(values: Mapping[str, Any], key: str, path: Path) -> int:
    value = values.get(key)
    if type(value) is not int or value < 1:
        raise ModelFolderError(f"{path}: {key}: {value!r}; expected a whole number above 0")
    return value


def _number(values: Mapping[str, Any], key: str, path: Path) -> float:
    value = values.get(key, _DEFAULTS[key])
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ModelFolderError(f"{path}: {key}: {value!r}; expected a number")
    return float(value)
