"""Shapes of stacks of layers."""

from dataclasses import dataclass

from blt.configuration import check


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape of a stack of layers."""

    dim: int
    """Width of a state."""
    num_layers: int
    """Layers of the stack."""
    num_heads: int
    """Attention heads; each is dim / num_heads wide."""

    def __post_init__(self) -> None:
        check(self.num_layers >= 1, f"num_layers: {self.num_layers} layers; at least 1")
        check(self.dim >= 1 and self.num_heads >= 1, f"dim {self.dim}, num_heads {self.num_heads}; both at least 1")
        check(
            self.dim % (2 * self.num_heads) == 0,
            f"dim: {self.dim} is no multiple of 2 × num_heads ({self.num_heads}); heads must be even for RoPE",
        )


@dataclass(frozen=True, kw_only=True)
class LocalConfig(TransformerConfig):
    """Shape of a stack in which each position sees a window of the newest ones."""

    window: int = 128
    """How many positions one sees, itself included."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.window >= 1, f"window: {self.window} positions; at least 1")
