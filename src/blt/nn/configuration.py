"""Shapes of stacks of layers."""

import math
from dataclasses import dataclass

from blt.configuration import check, check_range

FEED_FORWARD_MULTIPLE = 64
MAX_DIM, MAX_LAYERS, MAX_WINDOW = 2**17, 2**12, 2**20
"""Upper bounds, far above any real model, so that a damaged or hostile configuration is refused before allocation."""
MAX_ROPE_THETA = 1e15
"""The largest base of RoPE; the smallest is 1."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape of a stack of Transformer layers."""

    dim: int
    """Model width."""
    num_layers: int
    """Number of layers."""
    num_heads: int
    """Attention heads; each is dim / num_heads wide."""
    feed_forward_dim: int | None = None
    """Hidden width of the SwiGLU layers; None means 8/3 of dim, rounded up to a multiple of 64."""
    norm_epsilon: float = 1e-5
    """Epsilon of RMSNorm."""

    def __post_init__(self) -> None:
        check_range("num_layers", self.num_layers, 1, MAX_LAYERS)
        check_range("dim", self.dim, 1, MAX_DIM)
        check_range("num_heads", self.num_heads, 1, MAX_DIM)
        check(
            self.dim % (2 * self.num_heads) == 0,
            f"dim: {self.dim} must be a multiple of 2 × num_heads ({self.num_heads}): RoPE needs heads of even width",
        )
        if self.feed_forward_dim is not None:
            check_range("feed_forward_dim", self.feed_forward_dim, 1, 8 * MAX_DIM)
        check(
            0 <= self.norm_epsilon < math.inf,
            f"norm_epsilon: {self.norm_epsilon}; expected a finite number of at least 0",
        )

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.dim // self.num_heads

    @property
    def feed_forward_width(self) -> int:
        """Hidden width of the SwiGLU layers; the default costs as much as a plain feed-forward layer of 4·dim."""
        if self.feed_forward_dim is not None:
            return self.feed_forward_dim
        return -(-8 * self.dim // 3 // FEED_FORWARD_MULTIPLE) * FEED_FORWARD_MULTIPLE


@dataclass(frozen=True, kw_only=True)
class LocalConfig(TransformerConfig):
    """Shape of a stack with sliding-window attention."""

    window: int = 128
    """Attention window: how many positions each one attends to, itself included."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("window", self.window, 1, MAX_WINDOW)
