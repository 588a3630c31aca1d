"""Small random Llamas of transformers, and GGUF files of them as llama.cpp's converter writes them."""

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 50
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def new_llama(*, heads=4, shared=2, tie=True, **options):
    """A model whose every weight is random, norms too."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        rms_norm_eps=1e-4,
        rope_parameters={"rope_type": "default", "rope_theta": 777.0},
        tie_word_embeddings=tie,
        **options,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(std=0.15).add_(1.0 if "norm" in name else 0.0)
    return model


def gguf_name(name):
    """The name in llama.cpp of a tensor of transformers."""
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        index, rest = stem.removeprefix("model.layers.").split(".", 1)
        return f"blk.{index}.{GGUF_NAMES[rest]}.weight"
    return f"{GGUF_NAMES[stem]}.weight"


def permuted(weights, heads):
    """llama.cpp's order of the rows of queries and keys (`LlamaModel.permute` of its converter)."""
    split = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return split.swapaxes(1, 2).reshape(weights.shape)


def write_gguf(model, path, *, kind="F32", fields=None, without=()):
    """Write a model, its matrices stored as `kind`; the model's own weights become what was stored."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    values = {
        "block_count": config.num_hidden_layers,
        "context_length": 128,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
    }
    for key, value in (values | (fields or {})).items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.rope.freq_base", config.rope_parameters["rope_theta"])
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    writer.add_array("tokenizer.ggml.tokens", [f"token{index}" for index in range(VOCABULARY)])
    writer.add_array("tokenizer.ggml.scores", [0.5] * VOCABULARY)
    stored_kind = gguf.GGMLQuantizationType[kind]
    for name, weight in model.named_parameters():
        array = weight.detach().numpy().astype(np.float32)
        if array.ndim == 2:
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
            heads = next((count for part, count in heads.items() if part in name), None)
            array = permuted(array, heads) if heads else array
            raw = gguf.quants.quantize(array, stored_kind)
            kept = torch.from_numpy(np.array(gguf.quants.dequantize(raw, stored_kind), np.float32))
            if heads:  # back to transformers' order: the inverse is the same shuffle with its two axes exchanged
                kept = kept.reshape(heads, -1, 2, kept.shape[1]).transpose(1, 2).reshape(kept.shape)
            weight.data.copy_(kept)
            if gguf_name(name) not in without:
                writer.add_tensor(gguf_name(name), raw, raw_dtype=stored_kind)
        elif gguf_name(name) not in without:
            writer.add_tensor(gguf_name(name), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
