"""What reads models of our own and of other software, and what constrains a text."""

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from tests.fuzz.harness import fuzzer, write_value

from blt.api import ByteLM
from blt.entropy import EntropyConfig
from blt.generation.constraint import constraint_of
from blt.interop import read_published, read_transformers, write_transformers
from blt.interop.llama import read_llama
from blt.interop.published import published_name
from blt.lm import LMConfig
from blt.model import BLTConfig, HashConfig, LocalConfig, TransformerConfig
from blt.patching import EntropyRule
from blt.training import load_recipe

_Files = dict[str, bytes]


def _lm() -> ByteLM:
    local = LocalConfig(dim=8, num_layers=1, num_heads=2, window=4, feed_forward_dim=8)
    shape = BLTConfig(
        local_encoder=local,
        global_transformer=TransformerConfig(dim=8, num_layers=1, num_heads=2, feed_forward_dim=8),
        local_decoder=local,
        hash_embedding=HashConfig(ngram_sizes=(3,), num_rows=4),
        queries_per_patch=2,
        tie_embeddings=False,
    )
    entropy = EntropyConfig(dim=8, num_layers=1, num_heads=2, window=4, feed_forward_dim=8)
    return ByteLM.new(LMConfig(blt=shape, entropy_model=entropy, patch_rule=EntropyRule(threshold=5.0))).eval()


def _written(write: Callable[[Path], object]) -> _Files:
    """Return the files that something writes, by their names within its folder."""
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch) / "model")
        folder = Path(scratch) / "model"
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _own() -> list[_Files]:
    sharded = _written(lambda folder: _lm().save_pretrained(folder, max_shard_bytes=4000))
    return [_written(_lm().save_pretrained), {name: data for name, data in sharded.items() if name != "README.md"}]


@fuzzer(seeds=_own)
def own_folder(files: _Files, folder: Path) -> None:
    write_value(files, folder / "model")
    ByteLM.from_pretrained(folder / "model")


def _theirs() -> _Files:
    wanted = ("config.json", "model.safetensors")
    return {name: data for name, data in _written(lambda out: write_transformers(_lm(), out)).items() if name in wanted}


@fuzzer(seeds=lambda: [_theirs()])
def transformers_folder(files: _Files, folder: Path) -> None:
    write_value(files, folder / "model")
    read_transformers(folder / "model")


def _published() -> _Files:
    """Two folders in one, as the published layout has them."""
    parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "entropy": {}}
    for name, tensor in safetensors.torch.load(_theirs()["model.safetensors"]).items():
        written = published_name(name.replace("hash_tok_embedding.", "hash_tok_embedding.0."))
        parts["entropy" if ".patcher." in name else "model"][written.removesuffix(" of the entropy model")] = tensor
    arguments = {
        **{f"dim_{part}": 8 for part in ("global", "local_encoder", "local_decoder")},
        **{f"n_layers_{part}": 1 for part in ("global", "local_encoder", "local_decoder")},
        **{f"n_heads_{part}": 2 for part in ("global", "local_encoder", "local_decoder")},
        **{"cross_attn_k": 2, "cross_attn_all_layers_encoder": False, "cross_attn_all_layers_decoder": True},
        **{"encoder_hash_byte_group_size": [3], "encoder_hash_byte_group_vocab": 4, "n_kv_heads": None},
        **{"encoder_hash_byte_group_nb_functions": 1, "norm_eps": 1e-5, "rope_theta": 500000.0, "eos_id": 2},
        **{"local_attention_window_len": 4, "attn_impl": "xformers", "cross_attn_nheads": 2},
    }
    entropy = {"dim": 8, "n_layers": 1, "n_heads": 2, "rope_theta": 500000.0, "sliding_window": 4}
    training = {"data": {"patcher_args": {"threshold": 5.0, "threshold_add": None, "max_patch_length": None}}}
    return {
        "model/config.json": json.dumps({"args": arguments}).encode(),
        "model/model.safetensors": safetensors.torch.save(parts["model"]),
        "model/train_args.json": json.dumps(training).encode(),
        "entropy/config.json": json.dumps({"args": entropy}).encode(),
        "entropy/model.safetensors": safetensors.torch.save(parts["entropy"]),
    }


@fuzzer(seeds=lambda: [_published()])
def published_folder(files: _Files, folder: Path) -> None:
    write_value(files, folder / "both")
    read_published(folder / "both" / "model", entropy=folder / "both" / "entropy")


_LLAMA = {
    **{"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"num_key_value_heads": 1, "intermediate_size": 8, "rms_norm_eps": 1e-5},
    "rope_parameters": {"rope_type": "default", "rope_theta": 777.0},
}


def _llama() -> _Files:
    shapes = {"self_attn.q_proj": (8, 8), "self_attn.k_proj": (4, 8), "self_attn.v_proj": (4, 8)}
    shapes |= {"self_attn.o_proj": (8, 8), "input_layernorm": (8,), "post_attention_layernorm": (8,)}
    shapes |= {"mlp.gate_proj": (8, 8), "mlp.up_proj": (8, 8), "mlp.down_proj": (8, 8)}
    tensors = {f"model.layers.0.{name}.weight": torch.ones(shape) for name, shape in shapes.items()}
    tensors |= {"model.embed_tokens.weight": torch.ones(6, 8), "model.norm.weight": torch.ones(8)}
    return {"config.json": json.dumps(_LLAMA).encode(), "model.safetensors": safetensors.torch.save(tensors)}


@fuzzer(seeds=lambda: [_llama()])
def llama_folder(files: _Files, folder: Path) -> None:
    write_value(files, folder / "model")
    read_llama(folder / "model")


def _gguf() -> list[bytes]:
    import gguf
    import numpy as np

    names = {"attn_q": (8, 8), "attn_k": (4, 8), "attn_v": (4, 8), "attn_output": (8, 8), "ffn_norm": (8,)}
    names |= {"attn_norm": (8,), "ffn_gate": (8, 8), "ffn_up": (8, 8), "ffn_down": (8, 8)}
    fields = {"block_count": 1, "embedding_length": 8, "feed_forward_length": 8, "attention.head_count": 2}
    with tempfile.TemporaryDirectory() as scratch:
        writer = gguf.GGUFWriter(Path(scratch) / "a.gguf", "llama")
        for name, value in (fields | {"attention.head_count_kv": 1, "rope.dimension_count": 4}).items():
            writer.add_uint32(f"llama.{name}", value)
        writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
        tensors = {f"blk.0.{name}.weight": shape for name, shape in names.items()}
        for name, shape in (tensors | {"token_embd.weight": (6, 8), "output_norm.weight": (8,)}).items():
            writer.add_tensor(name, np.ones(shape, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return [(Path(scratch) / "a.gguf").read_bytes()]


@fuzzer(seeds=_gguf)
def gguf_file(data: bytes, folder: Path) -> None:
    (folder / "a.gguf").write_bytes(data)
    read_llama(folder / "a.gguf")


def _follow(**options: str) -> None:
    """Write a few bytes, each the smallest that may come."""
    constraint = constraint_of(**({"regex": None, "json_schema": None} | options))
    for _ in range(20):
        if constraint.is_over:
            return
        constraint.read(int(constraint.penalties()[4:].argmax()) + 4)


@fuzzer(seeds=lambda: [rb"[a-z]{5} \d\d", "(é|🙂)+?".encode(), rb"(?i)a|b*(c[^d-f]){2,3}", rb"\p{Greek}\w{1,30}x", b""])
def regular_expression(data: bytes, folder: Path) -> None:
    _follow(regex=data.decode(errors="surrogateescape"))


_SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}, "b": {"$ref": "#/$defs/c"}}}
    | {"required": ["a"], "additionalProperties": False, "$defs": {"c": {"enum": ["é", 1.5, None, [True]]}}},
    {"type": "array", "items": {"anyOf": [{"type": "string", "pattern": "^a+$"}, {"const": {"x": 1}}]}, "maxItems": 3},
    {"patternProperties": {"^x": {"type": "number", "multipleOf": 0.5}}, "minProperties": 1, "allOf": [{}]},
    {"type": "string", "minLength": 1, "maxLength": 12, "format": "date-time"},
]


@fuzzer(seeds=lambda: [json.dumps(schema).encode() for schema in _SCHEMAS])
def json_schema(data: bytes, folder: Path) -> None:
    _follow(json_schema=data.decode(errors="surrogateescape"))


def _recipes() -> list[bytes]:
    shipped = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
    assert shipped, "no recipes beside the tests"
    return [path.read_bytes() for path in shipped]


@fuzzer(seeds=_recipes)
def recipe(data: bytes, folder: Path) -> None:
    (folder / "a.toml").write_bytes(data)
    dataclasses.asdict(load_recipe(folder / "a.toml"))
