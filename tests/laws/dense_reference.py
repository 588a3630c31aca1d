"""The forward passes written the slow, plain way, as an oracle: one document at a time, dense masks, float64.

Nothing here is shared with `blt` but the names of the weights: no blocks, no slots, no scatter, no packed rows.
"""

import math
from itertools import pairwise

import torch
from torch.nn import functional as F

from blt.codec import BOE_ID, BOS_ID
from blt.entropy import EntropyModel
from blt.model import BLT
from blt.shapes import Bool, Float, Int, Tensor

EPSILON = 1e-5
PRIMES = (1000000007, 5915587277, 1500450271)


def dense_logits(model: BLT, byte_ids: Int[Tensor, "B T"], ends: Bool[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
    """BLT, in float64."""
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    rows = []
    for row, row_ends in zip(byte_ids, ends, strict=True):
        pieces = [
            _document_logits(model, weights, row[start:stop].tolist(), row_ends[start:stop].tolist())
            for start, stop in _documents(row)
        ]
        rows.append(torch.cat(pieces))
    return torch.stack(rows)


def dense_entropy_logits(model: EntropyModel, byte_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
    """The entropy model, in float64."""
    config = model.config
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    rows = []
    for row in byte_ids:
        pieces = []
        for start, stop in _documents(row):
            states = weights["bytes.weight"][row[start:stop]]
            mask = _window_mask(stop - start, config.window)
            states = _stack(weights, "layers", states, mask, config.num_heads, config.rope_theta)
            pieces.append(_norm(states, weights["norm.weight"]) @ weights["bytes.weight"].T)
        rows.append(torch.cat(pieces))
    return torch.stack(rows)


def _documents(row: Int[Tensor, " T"]) -> list[tuple[int, int]]:
    """Where each document of a row starts and stops; what stands before the first BOS is one too."""
    return list(pairwise([*sorted({0, *(row == BOS_ID).nonzero()[:, 0].tolist()}), len(row)]))


def _document_logits(model: BLT, weights: dict[str, Tensor], ids: list[int], ends: list[bool]) -> Float[Tensor, "T V"]:
    config = model.config
    length, k, theta = len(ids), config.queries_per_patch, config.rope_theta
    last_bytes = [t for t in range(length) if ends[t]]
    patches = [range(before + 1, last + 1) for before, last in pairwise([-1, *last_bytes])]  # not the open one

    # The encoder: bytes, then patches.
    shape = config.local_encoder
    byte_states = torch.stack([_embed(model, weights, ids[: t + 1]) for t in range(length)])
    mask = _window_mask(length, shape.window)
    byte_states = _stack(weights, "local_encoder.layers", byte_states, mask, shape.num_heads, theta)
    patch_states = []
    for patch in patches:
        own = byte_states[list(patch)]
        queries = (weights["local_encoder.to_queries.weight"] @ own.max(0).values).view(k, shape.dim)
        vectors = queries + _cross(weights, "local_encoder.cross_attention", queries, own, shape.num_heads)
        joined = vectors.flatten()
        to_global = weights.get("local_encoder.to_global.weight")
        patch_states.append(joined if to_global is None else to_global @ joined)

    # The global transformer: every patch sees all earlier ones.
    if patches:
        causal = torch.ones(len(patches), len(patches), dtype=torch.bool).tril()
        heads = config.global_transformer.num_heads
        latents = _stack(weights, "global_transformer.layers", torch.stack(patch_states), causal, heads, theta)

    # The decoder: bytes read the newest patch that is complete once they are read.
    shape = config.local_decoder
    num_cross = shape.num_layers if config.decoder_cross_attention == "every" else 1
    mask = _window_mask(length, shape.window)
    for index in range(shape.num_layers):
        if index < num_cross:
            read = []
            for t in range(length):
                complete = [number for number, patch in enumerate(patches) if patch[-1] <= t]
                if not complete:
                    read.append(byte_states[t])
                    continue
                vectors = (weights["local_decoder.from_global.weight"] @ latents[complete[-1]]).view(k, shape.dim)
                name = f"local_decoder.cross_attentions.{index}"
                asked = byte_states[t : t + 1]
                read.append((asked + _cross(weights, name, asked, vectors, shape.num_heads))[0])
            byte_states = torch.stack(read)
        name = f"local_decoder.layers.layers.{index}"
        byte_states = _layer(weights, name, byte_states, mask, shape.num_heads, theta)
    states = _norm(byte_states, weights["local_decoder.norm.weight"])
    return states @ weights.get("output.weight", weights["hash_embedding.bytes.weight"]).T


def _embed(model: BLT, weights: dict[str, Tensor], ids: list[int]) -> Float[Tensor, " D"]:
    """Embed the last of `ids` with the n-grams that end there."""
    config = model.config.hash_embedding
    embedded = weights["hash_embedding.bytes.weight"][ids[-1]].clone()
    table = 0
    for function in range(config.num_functions):
        for n in config.ngram_sizes:
            ngram = ([BOE_ID] * n + ids)[-n:]
            hashed = sum(byte_id * PRIMES[function] ** j for j, byte_id in enumerate(ngram))
            wrapped = (hashed + 2**63) % 2**64 - 2**63
            embedded += weights["hash_embedding.ngrams.weight"][table * config.num_rows + wrapped % config.num_rows]
            table += 1
    return embedded


def _window_mask(length: int, window: int) -> Bool[Tensor, "T T"]:
    """Each position sees itself and the `window` − 1 before it."""
    return torch.tensor([[0 <= query - key < window for key in range(length)] for query in range(length)])


def _norm(states: Tensor, weight: Tensor) -> Tensor:
    return states / (states.square().mean(-1, keepdim=True) + EPSILON).sqrt() * weight


def _stack(
    weights: dict[str, Tensor], name: str, states: Tensor, mask: Tensor, num_heads: int, theta: float
) -> Float[Tensor, "T D"]:
    index = 0
    while f"{name}.layers.{index}.attention_norm.weight" in weights:
        states = _layer(weights, f"{name}.layers.{index}", states, mask, num_heads, theta)
        index += 1
    return states


def _layer(
    weights: dict[str, Tensor], name: str, states: Tensor, mask: Tensor, num_heads: int, theta: float
) -> Float[Tensor, "T D"]:
    """One layer of the Llama block."""
    normed = _norm(states, weights[f"{name}.attention_norm.weight"])
    queries, keys, values = (
        normed @ weights[f"{name}.attention.{part}.weight"].T for part in ("query", "key", "value")
    )
    mixed = _attend(_rotate(queries, num_heads, theta), _rotate(keys, num_heads, theta), values, mask, num_heads)
    states = states + mixed @ weights[f"{name}.attention.output.weight"].T
    normed = _norm(states, weights[f"{name}.feed_forward_norm.weight"])
    gate, up, down = (weights[f"{name}.feed_forward.{part}.weight"].T for part in ("gate", "up", "down"))
    return states + (F.silu(normed @ gate) * (normed @ up)) @ down


def _cross(weights: dict[str, Tensor], name: str, asking: Tensor, source: Tensor, num_heads: int) -> Tensor:
    """Cross-attention, without RoPE, of every asking state to all of the source."""
    asked = _norm(asking, weights[f"{name}.query_norm.weight"])
    normed = _norm(source, weights[f"{name}.source_norm.weight"])
    queries = asked @ weights[f"{name}.query.weight"].T
    keys, values = normed @ weights[f"{name}.key.weight"].T, normed @ weights[f"{name}.value.weight"].T
    everything = torch.ones(len(asking), len(source), dtype=torch.bool)
    return _attend(queries, keys, values, everything, num_heads) @ weights[f"{name}.output.weight"].T


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, num_heads: int) -> Tensor:
    """Attention by a dense mask, head by head."""
    heads = []
    for q, k, v in zip(*(part.chunk(num_heads, dim=-1) for part in (queries, keys, values)), strict=True):
        scores = (q @ k.T / math.sqrt(q.shape[-1])).masked_fill(~mask, -math.inf)
        heads.append(scores.softmax(-1) @ v)
    return torch.cat(heads, dim=-1)


def _rotate(states: Float[Tensor, "T D"], num_heads: int, theta: float) -> Float[Tensor, "T D"]:
    """RoPE as a turn of complex numbers: feature i of a head with feature i + half."""
    turned = []
    for head in states.chunk(num_heads, dim=-1):
        first, second = head.chunk(2, dim=-1)
        half = first.shape[-1]
        angles = torch.arange(len(states))[:, None] * theta ** (-torch.arange(half, dtype=torch.float64) / half)
        complexes = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
        turned.append(torch.cat([complexes.real, complexes.imag], dim=-1))
    return torch.cat(turned, dim=-1)
