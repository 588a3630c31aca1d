"""Parameters and FLOPs from the configuration alone; no model is built.

FLOPs per byte follow the paper's accounting (section 4.5 and its appendix on FLOPs): the global transformer's divided
by the mean patch length, plus the encoder's, the decoder's and both cross-attentions'. A matmul costs 2
per weight and position, embeddings cost nothing, and the backward pass costs twice the forward. Norms, softmax, RoPE
and other work that grows with the width alone is left out, as in the paper.

Attention counts visible pairs only: a query and a key cost 4 × width for score and weighted sum, and a position has as
many keys as are visible to it, averaged over a document of `context_bytes`. What is computed can be more: masked
windowed attention computes blocks of the window against two such blocks, and the global transformer masked pairs too.
"""

import math
from dataclasses import dataclass

from blt.codec import VOCABULARY_SIZE
from blt.configuration import check
from blt.entropy import EntropyConfig
from blt.model.configuration import BLTConfig
from blt.nn import LocalConfig, TransformerConfig


@dataclass(frozen=True, kw_only=True)
class PartCost:
    """Cost of one part of a model."""

    name: str
    """The paper's name."""
    num_parameters: int
    """Parameters."""
    num_hidden: int
    """Parameters in the matrices of linear layers, which Muon updates; without the output matrix."""
    products: float
    """Forward FLOPs per byte in matmuls with weights."""
    attention: float
    """Forward FLOPs per byte in attention scores and weighted sums."""

    @property
    def flops(self) -> float:
        """Forward FLOPs per byte."""
        return self.products + self.attention


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a model."""

    parts: tuple[PartCost, ...]
    """Of the BLT."""
    entropy_model: PartCost | None
    """The frozen entropy model's, if there is one."""
    mean_patch_bytes: float
    """Mean bytes per patch assumed."""
    context_bytes: int
    """Length of a document, or of a training sequence, assumed."""

    @property
    def num_parameters(self) -> int:
        """Parameters of the BLT."""
        return sum(part.num_parameters for part in self.parts)

    @property
    def num_parameters_without_embeddings(self) -> int:
        """Parameters without embeddings; the paper's 1B and 8B count these."""
        return sum(part.num_parameters for part in self.parts if not part.name.endswith("embedding"))

    @property
    def flops(self) -> float:
        """Forward FLOPs per byte, without the entropy model."""
        return sum(part.flops for part in self.parts)

    @property
    def flops_with_entropy_model(self) -> float:
        """Forward FLOPs per byte, with the entropy model."""
        return self.flops + (0.0 if self.entropy_model is None else self.entropy_model.flops)

    @property
    def training_flops(self) -> float:
        """Forward and backward FLOPs per byte, without the entropy model."""
        return 3 * self.flops

    @property
    def training_flops_with_entropy_model(self) -> float:
        """The same with the frozen entropy model, which only runs forward."""
        return self.training_flops + self.flops_with_entropy_model - self.flops


def cost_of(
    config: BLTConfig, *, mean_patch_bytes: float, context_bytes: int, entropy_model: EntropyConfig | None = None
) -> Cost:
    """Return the cost of a model.

    Args:
        config: its shape.
        mean_patch_bytes: bytes per patch, on average.
        context_bytes: length of a document, or of a training sequence.
        entropy_model: shape of the entropy model, if there is one.

    Raises:
        ConfigurationError: a number is below 1.
    """
    check(mean_patch_bytes >= 1, f"mean_patch_bytes: a patch holds at least 1 byte, got {mean_patch_bytes}")
    check(context_bytes >= 1, f"context_bytes: expected at least 1, got {context_bytes}")
    stacks = {
        "local encoder": _local(config.local_encoder, context_bytes=context_bytes),
        "global transformer": _stack(
            config.global_transformer, mean_keys=mean_keys(context_bytes / mean_patch_bytes), every=mean_patch_bytes
        ),
        "local decoder": _local(config.local_decoder, context_bytes=context_bytes),
    }
    dim = config.local_encoder.dim
    output = VOCABULARY_SIZE * dim
    parts = [
        _part("byte embedding", weights=output),
        _part("n-gram embedding", weights=config.hash_embedding.num_tables * config.hash_embedding.num_rows * dim),
        _part("local encoder", layers=stacks["local encoder"]),
        _patches_read_bytes(config, mean_patch_bytes=mean_patch_bytes),
        _part("global transformer", layers=stacks["global transformer"]),
        _bytes_read_patch(config, mean_patch_bytes=mean_patch_bytes),
        _part("local decoder", layers=stacks["local decoder"], weights=dim),
        _part("output", weights=0 if config.tie_embeddings else output, products=2.0 * output),
    ]
    return Cost(
        parts=tuple(parts),
        entropy_model=None
        if entropy_model is None
        else cost_of_entropy_model(entropy_model, context_bytes=context_bytes),
        mean_patch_bytes=mean_patch_bytes,
        context_bytes=context_bytes,
    )


def mean_keys(length: int | float, *, window: int | float = math.inf) -> float:
    """Return the mean number of keys visible to a position, itself included, over a document of `length` positions."""
    seen_by_the_last = min(length, window)
    return seen_by_the_last * (1 - (seen_by_the_last - 1) / (2 * length))


@dataclass(frozen=True, kw_only=True)
class _Layers:
    """A stack of layers."""

    matrices: int
    norms: int
    products: float
    attention: float


def _stack(shape: TransformerConfig, *, mean_keys: float, every: float = 1.0) -> _Layers:
    """Return the cost of a stack that runs once in `every` bytes."""
    matrices = shape.num_layers * (4 * shape.dim**2 + 3 * shape.dim * shape.feed_forward_width)
    return _Layers(
        matrices=matrices,
        norms=shape.num_layers * 2 * shape.dim,
        products=2 * matrices / every,
        attention=shape.num_layers * 4 * shape.dim * mean_keys / every,
    )


def _local(shape: LocalConfig, *, context_bytes: int) -> _Layers:
    return _stack(shape, mean_keys=mean_keys(context_bytes, window=shape.window))


def _part(name: str, *, layers: _Layers | None = None, weights: int = 0, products: float = 0.0) -> PartCost:
    """Return the cost of a stack of layers plus further weights."""
    layers = layers or _Layers(matrices=0, norms=0, products=0.0, attention=0.0)
    return PartCost(
        name=name,
        num_parameters=layers.matrices + layers.norms + weights,
        num_hidden=layers.matrices,
        products=layers.products + products,
        attention=layers.attention,
    )


def _patches_read_bytes(config: BLTConfig, *, mean_patch_bytes: float) -> PartCost:
    """Return the encoder's cost: queries and outputs once per vector of a patch, keys and values once per byte."""
    dim, width, k = config.local_encoder.dim, config.global_transformer.dim, config.queries_per_patch
    to_queries = k * dim**2
    to_global = 0 if k * dim == width else k * dim * width
    per_patch = to_queries + to_global + k * 2 * dim**2
    return PartCost(
        name="encoder cross-attention",
        num_parameters=to_queries + to_global + 4 * dim**2 + 2 * dim,
        num_hidden=to_queries + to_global + 4 * dim**2,
        products=2 * (per_patch / mean_patch_bytes + 2 * dim**2),
        attention=4.0 * k * dim,
    )


def _bytes_read_patch(config: BLTConfig, *, mean_patch_bytes: float) -> PartCost:
    """Return the decoder's cost: queries and outputs once per byte, keys and values once per vector of a patch."""
    dim, width, k = config.local_decoder.dim, config.global_transformer.dim, config.queries_per_patch
    count = config.local_decoder.num_layers if config.decoder_cross_attention == "every" else 1
    from_global = width * k * dim
    per_patch = from_global + count * k * 2 * dim**2
    return PartCost(
        name="decoder cross-attention",
        num_parameters=from_global + count * (4 * dim**2 + 2 * dim),
        num_hidden=from_global + count * 4 * dim**2,
        products=2 * (per_patch / mean_patch_bytes + count * 2 * dim**2),
        attention=4.0 * count * k * dim,
    )


def cost_of_entropy_model(shape: EntropyConfig, *, context_bytes: int) -> PartCost:
    """Return the cost of an entropy model on documents of `context_bytes`."""
    embedding = VOCABULARY_SIZE * shape.dim
    layers = _local(shape, context_bytes=context_bytes)
    weights = embedding * (1 if shape.tie_embeddings else 2) + shape.dim
    return _part("entropy model", layers=layers, weights=weights, products=2.0 * embedding)


def with_unit(number: int | float) -> str:
    """Write three digits and a prefix, to be followed by the unit: `55.4 M`."""
    prefixes = ["", "k", "M", "G", "T", "P", "E"]
    place = 0
    while number >= 999.5 and place < len(prefixes) - 1:
        number, place = number / 1000, place + 1
    return f"{number:.3g} {prefixes[place]}"
