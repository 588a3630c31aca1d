"""A transformers `BltForCausalLM` folder ⇄ `ByteLM`; only safetensors and JSON are touched, never transformers itself.

What agrees: logits and patches, for any text that starts with BOS, as transformers' tokenizer has it. (Without a BOS
transformers still makes the first byte a patch of its own.) What cannot is said in `notes` and `last_byte_note`.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from blt.api import ByteLM
from blt.checkpoint import (
    MAX_SHARD_BYTES,
    FolderKind,
    load_json,
    load_tensors,
    read_whole,
    require_floating_point,
    require_names,
    save_shards,
    write_folder,
    write_json,
)
from blt.codec import BOE_ID, BOS_ID, BPE_ID, EOS_ID
from blt.errors import ModelFolderError
from blt.interop.accounting import Tell, log
from blt.interop.residual import double_residual
from blt.interop.transformers_config import account_for_arguments, read_layout, read_lm_config, write_config
from blt.interop.transformers_tokenizer import tokenizer_files
from blt.interop.transformers_weights import from_transformers, module_of, names, to_transformers
from blt.lm import LMConfig
from blt.lm.folder import read_card, write_card_file
from blt.model import HashConfig
from blt.shapes import Tensor

WEIGHTS = "model.safetensors"
GENERATION = {
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "suppress_tokens": [BOE_ID, BOS_ID, BPE_ID],  # ids that `blt generate` never writes either
    "use_cache": False,  # transformers keeps nothing of the patches, so that only without a cache its logits are right
}


def _is_own(folder: Path) -> bool:
    """Whether this module wrote a folder: nobody else writes such a `generation_config.json`."""
    try:
        is_blt = load_json(folder / "config.json").get("model_type") == "blt"
        return is_blt and load_json(folder / "generation_config.json") == GENERATION
    except ModelFolderError:
        return False


TRANSFORMERS_FOLDER = FolderKind(
    noun="model folder of transformers that blt wrote",
    files=re.compile(
        r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map)\.json|README\.md"
        r"|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
    ),
    is_own=_is_own,
)
"""What `write_transformers` writes, and may replace."""
EMBEDDING, HEAD = "model.local_encoder.embed_tokens.weight", "lm_head.weight"


def read_transformers(folder: str | Path, *, tell: Tell = log) -> ByteLM:
    """Read a transformers `BltForCausalLM`, its patcher included.

    The weights keep their precision: bfloat16 if all have it, else float32.

    Args:
        folder: with `config.json` and `model.safetensors`, or shards and their index.
        tell: takes a line for what is not known, and left out.

    Raises:
        ModelFolderError: missing, broken, pickled, or of a shape that cannot be carried over.
    """
    return read_whole(Path(folder), functools.partial(_read, tell=tell))


def _read(folder: Path, *, tell: Tell) -> ByteLM:
    path = folder / "config.json"
    values = load_json(path)
    account_for_arguments(values, path, tell=tell)
    lm = from_parts(values, load_shards(folder), path)
    lm.card = read_card(folder)
    return lm


def from_parts(
    values: Mapping[str, Any], tensors: dict[str, Tensor], path: Path, *, called: Callable[[str], str] = str
) -> ByteLM:
    """Make a `ByteLM` of what a folder of transformers holds.

    Args:
        values: of `config.json`.
        tensors: all weights, by transformers' names.
        path: of `config.json`, for messages.
        called: gives the name in the file for one of transformers, for messages.

    Raises:
        ModelFolderError: see `read_transformers`.
    """
    config, layout = read_lm_config(values, path), read_layout(values, path)
    shapes = _shapes(ByteLM.without_weights(config, path=path, num_tensors=len(tensors)), layout.key_value_heads)
    if config.blt.tie_embeddings:
        tensors = _with_one_embedding(tensors, path)
    table = names(config, encoder_cross_attention=layout.encoder_cross_attention)
    dead = _dead_prefixes(layout.encoder_cross_attention)
    unused = {name for name in tensors if name.startswith(dead) or name.endswith(".rotary_emb.inv_freq")}
    require_names(tensors, table.values(), where=path.parent, unused=unused, called=called)
    for ours, theirs in table.items():
        shape = shapes[ours]
        if ".cross_attention" in ours and tensors[theirs].shape[:1] == shape[1:] and len(shape) == 2:
            shape = (shape[1], shape[1])  # where self-attention shares heads, published cross-attention shares none
        _check_tensor(tensors[theirs], shape, called(theirs), path)
    dtype = torch.bfloat16 if all(tensors[name].dtype == torch.bfloat16 for name in table.values()) else torch.float32
    weights = {
        ours: from_transformers(ours, tensors[theirs], config, key_value_heads=layout.key_value_heads).to(dtype)
        for ours, theirs in table.items()
    }
    config, weights = _with_tied_entropy_model(config, weights)
    lm = ByteLM.without_weights(config, path=path, num_tensors=len(tensors))
    lm.load_state_dict(weights, assign=True)
    return lm.eval()


def load_shards(folder: Path) -> dict[str, Tensor]:
    """Read all weights of a folder, `model.safetensors` or the shards in its place; see `load_tensors`."""
    return load_tensors(folder / WEIGHTS)


def write_transformers(
    lm: ByteLM, folder: str | Path, *, max_shard_bytes: int = MAX_SHARD_BYTES, sources: Iterable[str | Path] = ()
) -> list[str]:
    """Write a folder that `BltForCausalLM.from_pretrained` loads.

    Args:
        lm: the model; unchanged.
        folder: replaced if this function wrote it and it holds nothing else.
        max_shard_bytes: the most that one file's tensors may have; more are divided into shards with an index.
        sources: files and folders that are read, and therefore never replaced.

    Returns:
        One line for each thing that differs there; see `notes`.

    Raises:
        ConfigurationError: a patch rule that transformers has not.
        ModelFolderError: something else is there.
        OutputError: the folder cannot be written.
    """
    config, weights = double_residual(*_with_what_transformers_wants(lm.config, dict(lm.state_dict())))
    values = write_config(config)
    stored = {theirs: to_transformers(ours, weights[ours], config) for ours, theirs in names(config).items()}
    stored[HEAD] = stored.get(HEAD, stored[EMBEDDING]).clone()
    dtype = {"dtype": str(lm.blt.hash_embedding.bytes.weight.dtype).removeprefix("torch.")}

    def fill(unfinished: Path) -> None:
        write_json(unfinished / "config.json", values | dtype)
        write_json(unfinished / "generation_config.json", GENERATION)
        for name, content in tokenizer_files().items():
            write_json(unfinished / name, content)
        save_shards(unfinished / WEIGHTS, stored, max_bytes=max_shard_bytes)
        write_card_file(unfinished, lm.card, before=Path(folder))

    write_folder(Path(folder), fill, kind=TRANSFORMERS_FOLDER, sources=sources)
    return notes(lm.config)


def notes(config: LMConfig) -> list[str]:
    """Return what a written model of that shape does otherwise in transformers."""
    encoder, decoder = config.blt.local_encoder.window, config.blt.local_decoder.window
    lines = [
        f"local attention is windowed ({encoder:,} bytes); a transformers that does not know "
        "local_attention_window_len attends to all bytes, and differs past that many"
    ]
    if encoder != decoder:
        lines.append(
            f"transformers has one window for encoder ({encoder:,} bytes) and decoder ({decoder:,}), and gets the "
            f"larger one: outputs differ past {min(encoder, decoder):,} bytes"
        )
    if config.blt.cross_attention_residual == "once":
        lines.append(
            "transformers adds cross-attention's residual twice; the weights are rescaled for it, "
            "exactly but for the ε of the decoder's norms"
        )
    return lines + last_byte_note(config)


def last_byte_note(config: LMConfig) -> list[str]:
    """Return a note where transformers treats the last byte of a text otherwise."""
    if config.patch_rule.max_length is None:
        return []
    return [
        "with max_patch_length set, transformers does not let the last byte of a text read a patch that it completes: "
        "its prediction differs there, and so may generated text"
    ]


def _with_one_embedding(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Use one name for a tied embedding: files hold it under either, or under both."""
    found = [tensors[name] for name in (EMBEDDING, HEAD) if name in tensors]
    if len(found) == 2 and not (found[0].shape == found[1].shape and torch.equal(*found)):
        raise ModelFolderError(f"{path}: tie_word_embeddings is true, but {EMBEDDING} and {HEAD} differ")
    rest = {name: tensor for name, tensor in tensors.items() if name != HEAD}
    return rest | {EMBEDDING: found[0]} if found else rest


def _dead_prefixes(encoder_cross_attention: int) -> tuple[str, ...]:
    """Name the encoder's cross-attentions that transformers computes and overwrites."""
    return tuple(f"model.local_encoder.cross_attn_layers.{index}." for index in range(encoder_cross_attention))


def _shapes(lm: ByteLM, key_value_heads: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the shape that each tensor has in transformers, where heads of keys and values may be shared."""
    shapes = {}
    for name, tensor in lm.state_dict().items():
        shapes[name] = tuple(tensor.shape)
        if name.endswith((".key.weight", ".value.weight")):
            module, stack = module_of(name, lm.config)
            rows, inputs = tensor.shape
            shapes[name] = (rows // stack.num_heads * key_value_heads[module], inputs)
    return shapes


def _check_tensor(tensor: Tensor, shape: tuple[int, ...], name: str, path: Path) -> None:
    """Refuse what is not of that shape, or holds no numbers to compute with."""
    require_floating_point(tensor.dtype, name, where=path.parent)
    if tuple(tensor.shape) != shape:
        raise ModelFolderError(f"{path.parent}: {name} has the shape {tuple(tensor.shape)}, config.json says {shape}")


def _with_tied_entropy_model(config: LMConfig, weights: dict[str, Tensor]) -> tuple[LMConfig, dict[str, Tensor]]:
    """Drop the entropy model's output matrix where it is its embedding."""
    entropy, name = config.entropy_model, "entropy_model.output.weight"
    if entropy is None or not (
        weights[name].shape == weights["entropy_model.bytes.weight"].shape
        and torch.equal(weights[name], weights["entropy_model.bytes.weight"])
    ):
        return config, weights
    rest = {key: weight for key, weight in weights.items() if key != name}
    return replace(config, entropy_model=replace(entropy, tie_embeddings=True)), rest


def _with_what_transformers_wants(config: LMConfig, weights: dict[str, Tensor]) -> tuple[LMConfig, dict[str, Tensor]]:
    """Spell out what transformers cannot do without: n-grams, and an output matrix of the entropy model."""
    blt, entropy = config.blt, config.entropy_model
    if not blt.hash_embedding.ngram_sizes:
        weights["blt.hash_embedding.ngrams.weight"] = torch.zeros_like(weights["blt.hash_embedding.bytes.weight"][:1])
        blt = replace(blt, hash_embedding=HashConfig(ngram_sizes=(2,), num_rows=1))
    if entropy is not None and entropy.tie_embeddings:
        weights["entropy_model.output.weight"] = weights["entropy_model.bytes.weight"].clone()
        entropy = replace(entropy, tie_embeddings=False)
    return replace(config, blt=blt, entropy_model=entropy), weights
