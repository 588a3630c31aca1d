"""The weights of a shape, and how FSDP and the owners of Muon share them out; nothing is allocated."""

import functools
import math
from dataclasses import dataclass

import torch
from torch import nn

from blt.lm.initialisation import WithoutInitialisation
from blt.model import BLT, BLTConfig
from blt.model.cross_attention import CrossAttention
from blt.nn.transformer import Layer

TABLE = "hash_embedding.ngrams.weight"
"""Name of the n-gram tables."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One weight of a model."""

    name: str
    """As in its state dict."""
    shape: tuple[int, ...]
    """Of the whole."""
    group: str
    """The module that FSDP gathers it with; empty: the root, which stays gathered."""
    is_linear: bool
    """Whether it is the matrix of a linear layer."""

    @property
    def numel(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def is_table(self) -> bool:
        """Whether it is the n-gram tables', which are divided by columns and never gathered."""
        return self.name == TABLE

    @property
    def is_hidden(self) -> bool:
        """Whether Muon moves it."""
        return self.is_linear and self.name != "output.weight"

    def share(self, shards: int) -> int:
        """Return how many numbers the rank with the most of them holds."""
        cut, rest = (self.shape[1], self.shape[0]) if self.is_table else (self.shape[0], math.prod(self.shape[1:]))
        return -(-cut // shards) * rest


@functools.lru_cache(maxsize=32)
def weights_of(config: BLTConfig) -> tuple[Weight, ...]:
    """List the weights of a shape, in the order of its modules."""
    with torch.device("meta"), WithoutInitialisation():
        model = BLT(config)
    groups = [name for name, part in model.named_modules() if isinstance(part, Layer | CrossAttention)]
    linear = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    return tuple(
        Weight(
            name=name,
            shape=tuple(weight.shape),
            group=next((group for group in groups if name.startswith(f"{group}.")), ""),
            is_linear=name in linear,
        )
        for name, weight in model.named_parameters()
    )


def groups_of(config: BLTConfig) -> dict[str, int]:
    """Return how many numbers FSDP gathers at once, by module; the root's under the empty name."""
    sizes: dict[str, int] = {}
    for weight in weights_of(config):
        if not weight.is_table:
            sizes[weight.group] = sizes.get(weight.group, 0) + weight.numel
    return sizes


def owned_by_ranks(config: BLTConfig, shards: int) -> list[list[Weight]]:
    """Return the matrices whose momentum each rank keeps under Muon and FSDP, as `ShardedMuon` deals them out."""
    work, owned = [0] * shards, [[] for _ in range(shards)]  # type: ignore[var-annotated]
    hidden = [weight for weight in weights_of(config) if weight.is_hidden]
    for weight in sorted(hidden, key=lambda weight: weight.numel * min(weight.shape), reverse=True):
        owner = work.index(min(work))
        work[owner] += weight.numel * min(weight.shape)
        owned[owner].append(weight)
    return owned


@functools.lru_cache(maxsize=256)
def possible_shards(config: BLTConfig, ranks: int) -> tuple[int, ...]:
    """Return the divisors of a number of ranks that FSDP can divide a shape's weights over, in order.

    n-gram tables are divided by columns, as `torch.chunk` does it, and each rank needs some.
    """
    width = config.local_encoder.dim if config.hash_embedding.num_tables else 0
    divisors = [shards for shards in range(1, ranks + 1) if ranks % shards == 0]
    return tuple(shards for shards in divisors if not width or -(-width // -(-width // shards)) == shards)


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What the rank that holds most has of a shape's weights, in numbers; and what is gathered of them."""

    dense: int
    """Of all weights but the n-gram tables."""
    table: int
    """Of the n-gram tables."""
    unhidden: int
    """Of the weights that Muon leaves to AdamW, without the n-gram tables."""
    owned: int
    """Of the matrices whose momentum one rank keeps under Muon."""
    muon_flops: float
    """What orthogonalising the matrices of one rank costs."""
    num_hidden: int
    """How many matrices Muon moves."""
    hidden: int
    """All numbers of these."""
    linear: int
    """All numbers of linear layers."""
    root: int
    """All numbers of the root group."""
    layers: int
    """All numbers of the other groups."""
    largest: int
    """Of the largest of these."""
    num_groups: int
    """How many groups there are, the root among them."""


@functools.lru_cache(maxsize=256)
def shares_of(config: BLTConfig, shards: int) -> Shares:
    """Return the shares of a shape's weights on a number of ranks."""
    weights, groups, owned = weights_of(config), groups_of(config), owned_by_ranks(config, shards)
    dense = [weight for weight in weights if not weight.is_table]
    hidden = [weight for weight in dense if weight.is_hidden]
    inner = [size for name, size in groups.items() if name]
    return Shares(
        dense=sum(weight.share(shards) for weight in dense),
        table=sum(weight.share(shards) for weight in weights if weight.is_table),
        unhidden=sum(weight.share(shards) for weight in dense if not weight.is_hidden),
        owned=max(sum(weight.numel for weight in some) for some in owned),
        muon_flops=max(math.fsum(flops_of_muon(weight.shape) for weight in some) for some in owned),
        num_hidden=len(hidden),
        hidden=sum(weight.numel for weight in hidden),
        linear=sum(weight.numel for weight in dense if weight.is_linear),
        root=groups.get("", 0),
        layers=sum(inner),
        largest=max(inner, default=0),
        num_groups=len(groups),
    )


def flops_of_muon(shape: tuple[int, ...], *, num_iterations: int = 5) -> float:
    """Return the FLOPs of orthogonalising a matrix: per iteration X Xᵀ, its square, and the product with X."""
    small, large = sorted(shape)
    return num_iterations * (4.0 * small**2 * large + 2.0 * small**3)
