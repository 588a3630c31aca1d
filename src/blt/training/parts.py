"""Which parts of a BLT are trained, how fast, and from which step on."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from torch import nn

from blt.configuration import check, check_range
from blt.shapes import Tensor


@dataclass(frozen=True, kw_only=True)
class PartConfig:
    """How one part is trained."""

    learning_rate_factor: float = 1.0
    """Times every learning rate of the stage; 0: the part keeps its weights."""
    frozen_steps: int = 0
    """Optimiser steps that the part sits out before it is trained too."""

    def __post_init__(self) -> None:
        check_range("learning_rate_factor", self.learning_rate_factor, 0, sys.float_info.max)
        check_range("frozen_steps", self.frozen_steps, 0)

    def is_trained(self, step: int) -> bool:
        """Whether step `step`, from 0, moves the part."""
        return self.learning_rate_factor > 0 and step >= self.frozen_steps


@dataclass(frozen=True, kw_only=True)
class PartsConfig:
    """How each part is trained; all at once and alike by default."""

    hash_embedding: PartConfig = field(default_factory=PartConfig)
    """Bytes and hashed n-grams; where the embedding is tied, the output matrix is in it."""
    local_encoder: PartConfig = field(default_factory=PartConfig)
    """Bytes → patches, with the projection to the global transformer's width."""
    global_transformer: PartConfig = field(default_factory=PartConfig)
    """Patches → latents."""
    local_decoder: PartConfig = field(default_factory=PartConfig)
    """Latents → bytes, with the projection from the global transformer's width, and the output matrix if untied."""

    def __post_init__(self) -> None:
        check(
            any(part.is_trained(0) for part in self.all().values()),
            "parts: the first step trains none of them; leave one with learning_rate_factor above 0 and frozen_steps 0",
        )

    def all(self) -> dict[str, PartConfig]:
        """Return every part by its name."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    def __str__(self) -> str:
        """Return the parts that are frozen, or that have a learning rate of their own."""
        said = []
        for name, part in self.all().items():
            if part.learning_rate_factor == 0:
                said.append(f"{name} frozen")
            elif part != PartConfig():
                start = f" from step {part.frozen_steps + 1:,}" if part.frozen_steps else ""
                said.append(f"{name}{start} at {part.learning_rate_factor:g} × the learning rate")
        return ", ".join(said)


def learning_rate_factors(module: nn.Module, parts: PartsConfig | None) -> dict[int, float]:
    """Return the factor of every weight, by its `id`; 1 for all where there are no parts."""
    if parts is None:
        return {id(weight): 1.0 for weight in module.parameters()}
    return {id(weight): part.learning_rate_factor for part, weight in _weights_by_part(module, parts)}


def freeze(module: nn.Module, parts: PartsConfig | None, *, step: int) -> None:
    """Set `requires_grad` for exactly the weights that optimiser step `step`, from 0, updates."""
    if parts is not None:
        for part, weight in _weights_by_part(module, parts):
            weight.requires_grad_(part.is_trained(step))


def _weights_by_part(module: nn.Module, parts: PartsConfig) -> Iterator[tuple[PartConfig, Tensor]]:
    by_name = parts.all() | {"output": parts.local_decoder}
    for name, weight in module.named_parameters():
        yield by_name[name.partition(".")[0]], weight
