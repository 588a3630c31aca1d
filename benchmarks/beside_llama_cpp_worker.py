"""llama.cpp on a Llama with new weights, one request per line; runs in an environment of its own.

    pip install llama-cpp-python gguf

Reads lines of JSON, `{"model": …, "what": "generate" | "prefill", "tokens": …}`, and answers each with seconds.
"""

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

VOCABULARY, HEAD = 4096, 64
PROMPT = 4
"""Tokens before what is generated."""


def write(path: Path, *, kind: str, dim: int, layers: int, pieces: Sequence[str] | None = None) -> int:
    """Write a Llama with tied embeddings and new weights; return its number of parameters.

    Args:
        path: where to.
        kind: type of the weights.
        dim: width.
        layers: how many.
        pieces: texts that are one token each; without them the model has no tokenizer.
    """
    stored = gguf.GGMLQuantizationType[kind.upper()]
    rng, hidden, total = np.random.default_rng(0), 64 * round(dim * 8 / 3 / 64), 0
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(2048)
    writer.add_embedding_length(dim)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(dim // HEAD)
    writer.add_head_count_kv(dim // HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD)
    if pieces is None:
        writer.add_tokenizer_model("no_vocab")
    else:
        add_vocabulary(writer, pieces)

    def add(name: str, *shape: int) -> None:
        nonlocal total
        total += int(np.prod(shape))
        data = np.ones(shape, np.float32) if len(shape) == 1 else rng.normal(0, 0.02, shape).astype(np.float32)
        if len(shape) == 1 or kind == "f32":
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, gguf.quants.quantize(data, stored), raw_dtype=stored)

    add("token_embd.weight", VOCABULARY, dim)
    add("output_norm.weight", dim)
    for index in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{index}.{name}.weight", dim, dim)
        add(f"blk.{index}.attn_norm.weight", dim)
        add(f"blk.{index}.ffn_norm.weight", dim)
        add(f"blk.{index}.ffn_gate.weight", hidden, dim)
        add(f"blk.{index}.ffn_up.weight", hidden, dim)
        add(f"blk.{index}.ffn_down.weight", dim, hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return total


def add_vocabulary(writer: gguf.GGUFWriter, pieces: Sequence[str]) -> None:
    """Add a tokenizer: bytes, the pieces, and words of four letters for what a model with new weights writes."""
    letters = map("".join, itertools.product("abcdefghij", repeat=4))
    known = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    words = [word for word in itertools.islice(letters, VOCABULARY) if word not in known][: VOCABULARY - len(known)]
    kinds = gguf.TokenType
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256, *[kinds.USER_DEFINED] * len(pieces)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*known, *words])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([*types, *[kinds.NORMAL] * len(words)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_space_prefix(False)


def main(names: list[str], *, threads: int) -> None:
    """Load models named `kind:layers:dim`, then answer requests."""
    models: dict[str, Any] = {}
    sizes = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            kind, layers, dim = name.split(":")
            path = Path(scratch) / f"{kind}-{layers}-{dim}.gguf"
            sizes[name] = write(path, kind=kind, dim=int(dim), layers=int(layers))
            models[name] = llama_cpp.Llama(
                str(path), n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False, logits_all=False
            )
        print(json.dumps({"sizes": sizes, "llama_cpp": llama_cpp.__version__}), flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            llm, tokens = models[request["model"]], request["tokens"]
            llm.reset()
            if request["what"] == "prefill":
                start = time.perf_counter()
                llm.eval(list(range(1, tokens + 1)))
            else:
                llm.eval(list(range(5, 5 + PROMPT)))
                start = time.perf_counter()
                for number in range(tokens):
                    llm.eval([7 + number])
            print(json.dumps(time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main(sys.argv[2:], threads=int(sys.argv[1]))
