"""Memory estimates of training and decoding from the configuration alone.

Weights, gradients, optimiser states and caches are exact. Activations are an estimate: what PyTorch keeps for the
backward pass, counted from the formulas of each part, without compilation.
"""

import math
import os
from dataclasses import dataclass
from typing import Literal

import torch

from blt.codec import VOCABULARY_SIZE
from blt.entropy import EntropyConfig
from blt.model.configuration import BLTConfig
from blt.model.cost import cost_of
from blt.nn import LocalConfig, TransformerConfig

FLOAT32_BYTES = 4
BFLOAT16_SHARE = 0.675
"""What activations take under autocast to bfloat16, of what they take in float32: the residual stream, norms and the
softmax stay in float32."""


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Peak memory of training, in bytes."""

    weights: int
    """float32, the frozen entropy model's included."""
    gradients: int
    """float32; for sparse tables, of the rows that a batch can read at most."""
    optimizer: int
    """AdamW: two moments per weight; Muon: one per hidden matrix, and AdamW's two for the rest. Each row of a sparse
    table also has a step count."""
    activations: int
    """Estimate for one batch."""

    @property
    def total(self) -> int:
        """Sum of all."""
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True, kw_only=True)
class DecodingMemory:
    """Memory of decoding, in bytes."""

    weights: int
    """The entropy model's included."""
    caches: int
    """Of one sequence: ring buffers of the windows, one entry per patch, and the readable patches."""

    @property
    def total(self) -> int:
        """Weights plus the caches of one sequence."""
        return self.weights + self.caches


def training_memory(
    config: BLTConfig,
    *,
    optimizer: Literal["adamw", "muon"],
    batch_bytes: int,
    mean_patch_bytes: float,
    entropy_model: EntropyConfig | None = None,
    sparse_ngrams: bool = False,
    accumulation: int = 1,
    recompute: bool = False,
) -> TrainingMemory:
    """Estimate the memory of training in float32.

    Args:
        config: shape of the model.
        optimizer: the optimizer.
        batch_bytes: bytes of one forward pass: batch size × sequence length ÷ accumulation.
        mean_patch_bytes: bytes per patch, on average.
        entropy_model: shape of the frozen entropy model, if there is one.
        sparse_ngrams: whether the n-gram tables have sparse gradients.
        accumulation: gradient accumulation, in forward passes per optimiser step.
        recompute: whether layers compute their inner values again in the backward pass.
    """
    cost = cost_of(config, mean_patch_bytes=mean_patch_bytes, context_bytes=1, entropy_model=entropy_model)
    frozen = 0 if cost.entropy_model is None else cost.entropy_model.num_parameters
    num_hidden = sum(part.num_hidden for part in cost.parts)
    moments = 2 * cost.num_parameters - (num_hidden if optimizer == "muon" else 0)
    gradients = cost.num_parameters
    if sparse_ngrams:
        hashing, dim = config.hash_embedding, config.local_encoder.dim
        moments += hashing.num_tables * hashing.num_rows
        gradients -= hashing.num_tables * max(0, hashing.num_rows - accumulation * batch_bytes) * dim
    return TrainingMemory(
        weights=FLOAT32_BYTES * (cost.num_parameters + frozen),
        gradients=FLOAT32_BYTES * gradients,
        optimizer=FLOAT32_BYTES * moments,
        activations=activation_bytes(
            config, batch_bytes=batch_bytes, mean_patch_bytes=mean_patch_bytes, recompute=recompute
        ),
    )


def activation_bytes(
    config: BLTConfig,
    *,
    batch_bytes: int,
    mean_patch_bytes: float,
    recompute: bool = False,
    bfloat16: bool = False,
) -> int:
    """Estimate what one forward pass leaves for the backward pass.

    Args:
        config: shape of the model.
        batch_bytes: bytes of the forward pass.
        mean_patch_bytes: bytes per patch, on average.
        recompute: whether a layer keeps its input alone, and computes the rest again: that of one layer at a time.
        bfloat16: whether matmuls are in bfloat16; copies of weights are not counted here.
    """
    kept = _kept_per_byte(config, mean_patch_bytes=mean_patch_bytes, recompute=recompute)
    return round(FLOAT32_BYTES * (BFLOAT16_SHARE if bfloat16 else 1.0) * batch_bytes * kept)


def decoding_memory(
    config: BLTConfig,
    *,
    context_bytes: int,
    mean_patch_bytes: float,
    entropy_model: EntropyConfig | None = None,
    bytes_per_number: int = FLOAT32_BYTES,
) -> DecodingMemory:
    """Return the memory of decoding one sequence.

    Args:
        config: shape of the model.
        context_bytes: bytes of prompt and continuation.
        mean_patch_bytes: bytes per patch, on average.
        entropy_model: shape of the entropy model, if there is one.
        bytes_per_number: 4 for float32, 2 for bfloat16.
    """
    cost = cost_of(config, mean_patch_bytes=mean_patch_bytes, context_bytes=1, entropy_model=entropy_model)
    frozen = 0 if cost.entropy_model is None else cost.entropy_model.num_parameters
    num_patches = math.ceil(context_bytes / mean_patch_bytes)
    rings = [config.local_encoder, config.local_decoder, *([] if entropy_model is None else [entropy_model])]
    numbers = sum(_ring(shape, context_bytes) for shape in rings)
    numbers += 2 * config.global_transformer.num_layers * config.global_transformer.dim * num_patches
    numbers += 2 * config.num_decoder_cross_attentions * config.queries_per_patch * config.local_decoder.dim
    return DecodingMemory(weights=bytes_per_number * (cost.num_parameters + frozen), caches=bytes_per_number * numbers)


def memory_of(device: torch.device) -> int | None:
    """Return the bytes of memory that a device has, in use or not; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if device.type == "cpu" else None
    except (AttributeError, ValueError, OSError):
        return None


def _ring(shape: LocalConfig, context_bytes: int) -> int:
    """Count the numbers in the ring buffer of a window."""
    return 2 * shape.num_layers * shape.dim * min(shape.window, context_bytes)


def _kept_per_byte(config: BLTConfig, *, mean_patch_bytes: float, recompute: bool = False) -> float:
    """Count the activations saved for the backward pass, per byte of the batch."""
    dim, k = config.local_encoder.dim, config.queries_per_patch
    stacks = (  # a stack, its copies of keys and values, and bytes per position
        (config.local_encoder, 2, 1.0),
        (config.local_decoder, 2, 1.0),
        (config.global_transformer, 1, mean_patch_bytes),
    )
    per_layer = [_kept_by_layer(shape, copies_of_keys=copies) / every for shape, copies, every in stacks]
    if recompute:
        layers = sum(shape.num_layers * shape.dim / every for shape, _, every in stacks) + max(per_layer)
    else:
        layers = sum(shape.num_layers * kept for (shape, _, _), kept in zip(stacks, per_layer, strict=True))
    patches_read = (k + 5) * dim + 6 * k * dim / mean_patch_bytes
    bytes_read = config.num_decoder_cross_attentions * ((2 * k + 6) * dim + 4 * k * dim / mean_patch_bytes)
    return layers + patches_read + bytes_read + 2 * VOCABULARY_SIZE


def _kept_by_layer(shape: TransformerConfig, *, copies_of_keys: int) -> int:
    """Count per position: inputs and outputs of both norms, queries, keys, values, attention output, and SwiGLU."""
    return (4 + 3 + 2 * copies_of_keys) * shape.dim + 4 * shape.feed_forward_width
