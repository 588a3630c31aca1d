"""Shapes of stacks of layers."""

import math
from dataclasses import dataclass

from blt.configuration import check, check_range

FEED_FORWARD_MULTIPLE = 64
MAX_DIM, MAX_LAYERS, MAX_WINDOW = 2**17, 2**12, 2**20
"""Bounds of a shape, far above any model's, so that a damaged or hostile one is refused before anything is made."""
MAX_ROPE_THETA = 1e15
"""The largest base of RoPE; the smallest is 1."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape of a stack of layers."""

    dim: int
    """Width of a state."""
    num_layers: int
    """Layers of the stack."""
    num_heads: int
    """Attention heads; each is dim / num_heads wide."""
    feed_forward_dim: int | None = None
    """Hidden width of the SwiGLU layers; None means 8/3 of dim, rounded up to a multiple of 64."""
    norm_epsilon: float = 1e-5
    """Added to the mean square that a norm divides by."""

    def __post_init__(self) -> None:
        check_range("num_layers", self.num_layers, 1, MAX_LAYERS)
        check_range("dim", self.dim, 1, MAX_DIM)
        check_range("num_heads", self.num_heads, 1, MAX_DIM)
        check(
            self.dim % (2 * self.num_heads) == 0,
            f"dim: {self.dim} is no multiple of 2 × num_heads ({self.num_heads}); heads must be even for RoPE",
        )
        if self.feed_forward_dim is not None:
            check_range("feed_forward_dim", self.feed_forward_dim, 1, 8 * MAX_DIM)
        check(0 <= self.norm_epsilon < math.inf, f"norm_epsilon: {self.norm_epsilon}; at least 0, and finite")

    @property
    def feed_forward_width(self) -> int:
        """Hidden width of the SwiGLU layers; by default one that costs as much as a plain layer of 4·dim."""
        if self.feed_forward_dim is not None:
            return self.feed_forward_dim
        return -(-8 * self.dim // 3 // FEED_FORWARD_MULTIPLE) * FEED_FORWARD_MULTIPLE


@dataclass(frozen=True, kw_only=True)
class LocalConfig(TransformerConfig):
    """Shape of a stack in which each position sees a window of the newest ones."""

    window: int = 128
    """How many positions one sees, itself included."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("window", self.window, 1, MAX_WINDOW)
