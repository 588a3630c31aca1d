"""The tensors of a transformers `BltForCausalLM` ⇄ those of a `ByteLM`: other names, and two other layouts.

RoPE: transformers turns neighbouring numbers of a head, (0, 1), (2, 3), …; ours turns (i, i + half). So the rows of
query and key projections trade places. Heads of keys and values that several heads of queries share are repeated.
"""

from collections.abc import Mapping

from blt.lm import LMConfig
from blt.nn import TransformerConfig
from blt.shapes import Float, Tensor

_LAYER = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
_CROSS_ATTENTION = {
    "query_norm": "q_norm",
    "source_norm": "k_norm",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "output": "o_proj",
}


def names(config: LMConfig, *, encoder_cross_attention: int = 0) -> dict[str, str]:
    """Return the name in transformers of every tensor of a `ByteLM`.

    Args:
        config: shape of the model.
        encoder_cross_attention: number of the encoder's whose result is used; see `Layout`.
    """
    blt, entropy = config.blt, config.entropy_model
    table = {
        "blt.hash_embedding.bytes": "model.local_encoder.embed_tokens",
        "blt.hash_embedding.ngrams": "model.encoder_hash_tok_embedding",
        "blt.local_encoder.to_queries": "model.local_encoder.patch_embedding_projection",
        "blt.local_decoder.from_global": "model.local_decoder.patch_embedding_projection",
        "blt.local_decoder.norm": "model.local_decoder.norm",
    }
    if blt.queries_per_patch * blt.local_encoder.dim != blt.global_transformer.dim:
        table["blt.local_encoder.to_global"] = "model.global_transformer.token_embedding_projection"
    if not blt.tie_embeddings:
        table["blt.output"] = "lm_head"
    cross = "cross_attn_layers"
    theirs = f"model.local_encoder.{cross}.{encoder_cross_attention}"
    table |= _inside("blt.local_encoder.cross_attention", theirs, _CROSS_ATTENTION)
    for index in range(blt.local_decoder.num_layers if blt.decoder_cross_attention == "every" else 1):
        ours = f"blt.local_decoder.cross_attentions.{index}"
        table |= _inside(ours, f"model.local_decoder.{cross}.{index}", _CROSS_ATTENTION)
    for part in ("local_encoder", "global_transformer", "local_decoder"):
        table |= _stack(f"blt.{part}", f"model.{part}", getattr(blt, part))
    if entropy is not None:
        table |= {"entropy_model.bytes": "model.patcher.embed_tokens", "entropy_model.norm": "model.patcher.norm"}
        table |= {} if entropy.tie_embeddings else {"entropy_model.output": "model.patcher.lm_head"}
        table |= _stack("entropy_model", "model.patcher", entropy)
    return {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in table.items()}


def _stack(ours: str, theirs: str, shape: TransformerConfig) -> dict[str, str]:
    table: dict[str, str] = {}
    for index in range(shape.num_layers):
        table |= _inside(f"{ours}.layers.layers.{index}", f"{theirs}.layers.{index}", _LAYER)
    return table


def _inside(ours: str, theirs: str, table: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.{mine}": f"{theirs}.{other}" for mine, other in table.items()}


def from_transformers(
    name: str, weight: Float[Tensor, "*shape"], config: LMConfig, *, key_value_heads: Mapping[str, int]
) -> Float[Tensor, "*shape2"]:
    """Return a tensor of transformers the layout of ours.

    Args:
        name: ours.
        weight: theirs.
        config: shape of the model.
        key_value_heads: of the module that each tensor lies in.
    """
    module, shape = module_of(name, config)
    shared = shape.num_heads // key_value_heads[module]
    if weight.dim() != 2:
        return weight
    inputs = weight.shape[1]
    is_shared = shared > 1 and len(weight) != shape.dim
    if is_shared and name.endswith((".key.weight", ".value.weight")):
        heads = weight.reshape(shape.num_heads // shared, -1, inputs)  # S E D, S heads that are shared
        weight = heads.repeat_interleave(shared, dim=0).reshape(-1, inputs)
    if _is_rotated(name):
        pairs = weight.reshape(shape.num_heads, -1, 2, inputs)  # H E/2 2 D
        weight = pairs.transpose(1, 2).reshape(-1, inputs)
    return weight


def to_transformers(name: str, weight: Float[Tensor, "*shape"], config: LMConfig) -> Float[Tensor, "*shape"]:
    """Return a tensor of ours the layout of transformers; the inverse of `from_transformers`."""
    if not _is_rotated(name):
        return weight
    num_heads, inputs = module_of(name, config)[1].num_heads, weight.shape[1]
    halves = weight.reshape(num_heads, 2, -1, inputs)  # H 2 E/2 D
    return halves.transpose(1, 2).reshape(-1, inputs)


def _is_rotated(name: str) -> bool:
    return name.endswith((".attention.query.weight", ".attention.key.weight"))


def module_of(name: str, config: LMConfig) -> tuple[str, TransformerConfig]:
    """Return the module that a tensor lies in, and the shape that its heads have."""
    blt = config.blt
    shapes: dict[str, TransformerConfig | None] = {
        "blt.local_encoder": blt.local_encoder,
        "blt.global_transformer": blt.global_transformer,
        "blt.local_decoder": blt.local_decoder,
        "entropy_model": config.entropy_model,
    }
    for module, shape in shapes.items():
        if name.startswith(f"{module}.") and shape is not None:
            return module, shape
    return "blt.global_transformer", blt.global_transformer  # embeddings and output: they have no heads
