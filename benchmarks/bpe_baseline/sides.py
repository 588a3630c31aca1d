"""The three sides, and the one count of FLOPs that all are held to.

FLOPs are `blt.model.cost`'s: 2 per weight of a matmul and position, the head included, 4 × width per query and visible
key, embeddings and norms nothing, and training three times the forward pass. Where a side's positions are tokens, its
figure per byte is the one per position, times the positions that a byte of the training text has; special ids count.
BLT pays for its entropy model: the forward pass on every byte that it reads, in training and inference, and the whole
training of that model, for every run anew.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from blt.codec import BOS_ID, VOCABULARY_SIZE
from blt.entropy import EntropyConfig
from blt.errors import ConfigurationError
from blt.model import BLTConfig
from blt.model.cost import cost_of, cost_of_entropy_model
from blt.nn import LocalConfig, RowInputs, Transformer, TransformerConfig, initialise
from blt.nn.transformer import RMSNorm
from blt.ops import run_positions
from blt.shapes import Float, Int, Tensor

SideName = Literal["blt", "bpe", "flat"]
SIDES: tuple[SideName, ...] = ("blt", "bpe", "flat")
ROPE_THETA = 500_000.0
HEAD_DIM = 32
FLOPS_BY_SIZE = (0.21e6, 0.4e6, 0.7e6, 1.2e6, 2.5e6)
"""Forward FLOPs per byte that the shapes of each size are made for."""
ENTROPY_SHAPE = EntropyConfig(dim=32, num_layers=1, num_heads=1, window=32)


def blt_shape(size: int) -> BLTConfig:
    """Return the BLT of a size."""
    dim, decoder, width, layers = (
        (32, 1, 64, 2),
        (48, 1, 128, 2),
        (64, 1, 192, 2),
        (96, 1, 192, 3),
        (96, 1, 320, 4),
    )[size]
    local = LocalConfig(dim=dim, num_layers=1, num_heads=1 if dim < 96 else 2, window=64)
    return BLTConfig(
        local_encoder=local,
        global_transformer=TransformerConfig(dim=width, num_layers=layers, num_heads=width // 64),
        local_decoder=replace(local, num_layers=decoder),
        queries_per_patch=2,
        decoder_cross_attention="first",
    )


class PlainTransformer(nn.Module):
    """Ids → logits of the next id: pre-RMSNorm, RoPE, SwiGLU, no biases, tied embedding; on bytes or on BPE."""

    def __init__(self, shape: LocalConfig, *, vocabulary: int) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(vocabulary, shape.dim)
        self.layers = Transformer(shape, theta=ROPE_THETA)
        self.norm = RMSNorm(shape.dim, epsilon=shape.norm_epsilon)
        initialise(self)
        nn.init.normal_(self.embedding.weight, std=shape.dim**-0.5)

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Predict, after every id, the one that follows it (logits, float32)."""
        documents = (ids == BOS_ID).long().cumsum(1)
        states = self.layers(self.embedding(ids), RowInputs(documents, run_positions(documents)))
        return nn.functional.linear(self.norm(states), self.embedding.weight).float()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a side reads a text."""

    positions_per_byte: float
    """Ids that it reads per byte, special ones included."""
    context: float
    """Length of a document in ids, as the mean over ids: with it, whole attention is counted exactly."""

    @classmethod
    def of(cls, documents: Sequence[NDArray[np.int64]], *, num_bytes: int) -> "Reading":
        """Measure it on ids of documents that hold so many bytes."""
        lengths = np.array([len(ids) for ids in documents], np.float64)
        return cls(positions_per_byte=lengths.sum() / num_bytes, context=float((lengths**2).sum() / lengths.sum()))


@dataclass(frozen=True, kw_only=True)
class SideCost:
    """What one side costs."""

    forward: float
    """FLOPs per byte, at inference; BLT's with its entropy model."""
    training: float
    """FLOPs per byte that is read in training."""
    once: float
    """FLOPs before the first byte: the training of BLT's entropy model."""
    parameters: int
    """All, embeddings and the entropy model included."""


def plain_cost(shape: LocalConfig, *, vocabulary: int, reading: Reading) -> SideCost:
    """Return the cost of a plain Transformer, on bytes or tokens."""
    same = EntropyConfig(**{name: getattr(shape, name) for name in shape.__dataclass_fields__})
    bytes_alone = cost_of_entropy_model(same, context_bytes=round(reading.context))
    more = (vocabulary - VOCABULARY_SIZE) * shape.dim
    forward = (bytes_alone.flops + 2 * more) * reading.positions_per_byte
    return SideCost(forward=forward, training=3 * forward, once=0.0, parameters=bytes_alone.num_parameters + more)


def blt_cost(
    shape: BLTConfig, *, ids_per_patch: float, reading: Reading, entropy_training: float, needs_entropies: bool
) -> SideCost:
    """Return the cost of a BLT; with a rule that needs no entropies, it has no entropy model.

    Args:
        shape: of the BLT.
        ids_per_patch: mean, special ids and their patches included.
        reading: of the bytes.
        entropy_training: FLOPs that the entropy model's training took.
        needs_entropies: whether the patch rule does.
    """
    cost = cost_of(
        shape,
        mean_patch_bytes=ids_per_patch,
        context_bytes=round(reading.context),
        entropy_model=ENTROPY_SHAPE if needs_entropies else None,
    )
    entropy = cost.entropy_model
    return SideCost(
        forward=cost.flops_with_entropy_model * reading.positions_per_byte,
        training=cost.training_flops_with_entropy_model * reading.positions_per_byte,
        once=entropy_training if needs_entropies else 0.0,
        parameters=cost.num_parameters + (0 if entropy is None else entropy.num_parameters),
    )


def plain_shape(
    *, vocabulary: int, reading: Reading, window: int, flops: float | None = None, parameters: float | None = None
) -> LocalConfig:
    """Return the plain Transformer that costs so many forward FLOPs per byte, or has so many parameters, within 1%.

    Width and depth grow together (a layer per 48 of width, at least 2; one fewer where nothing else fits); what is
    left, the feed-forward width makes up. Of the widths that can, the one is taken whose feed-forward layers come
    nearest to 8/3 of the width.

    Raises:
        ConfigurationError: none fits.
    """
    assert (flops is None) != (parameters is None), "one of the two is the target"
    for fewer in (0, 1):
        found = []
        for dim in range(HEAD_DIM, 1024 + 1, 16):
            heads = next(count for count in range(dim // HEAD_DIM, 0, -1) if dim % (2 * count) == 0)
            shape = LocalConfig(dim=dim, num_layers=max(2, dim // 48) - fewer, num_heads=heads, window=window)
            hidden = _hidden_width(shape, vocabulary=vocabulary, reading=reading, flops=flops, parameters=parameters)
            if hidden is not None:
                distance = abs(math.log(hidden / (dim * 8 / 3)))
                found.append((distance, dim, replace(shape, feed_forward_dim=hidden)))
        if found:
            return min(found, key=lambda each: each[:2])[2]
    raise ConfigurationError(f"no plain Transformer of {vocabulary} ids with {flops} FLOPs or {parameters} parameters")


def _hidden_width(
    shape: LocalConfig, *, vocabulary: int, reading: Reading, flops: float | None, parameters: float | None
) -> int | None:
    """Return the feed-forward width that meets the target within 1%; None unless it is 1 to 6 times the width."""

    def measure(hidden: int) -> float:
        cost = plain_cost(replace(shape, feed_forward_dim=hidden), vocabulary=vocabulary, reading=reading)
        return cost.forward if flops is not None else float(cost.parameters)

    target = flops if flops is not None else parameters
    assert target is not None
    hidden = round(1 + (target - measure(1)) / (measure(2) - measure(1)))
    fits = shape.dim <= hidden <= 6 * shape.dim and abs(measure(hidden) / target - 1) <= 0.01
    return hidden if fits else None


def count_parameters(module: nn.Module) -> int:
    """Return the number of a module's weights; tied ones count once."""
    return sum(weight.numel() for weight in module.parameters())


def new_module(shape: BLTConfig | LocalConfig, *, vocabulary: int, seed: int) -> nn.Module:
    """Return a side's module with new weights."""
    from blt.model import BLT

    torch.manual_seed(seed)
    return BLT(shape) if isinstance(shape, BLTConfig) else PlainTransformer(shape, vocabulary=vocabulary)
