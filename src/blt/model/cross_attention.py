"""Both cross-attentions, computed by patch indices: no bytes × patches mask is made, and cost is linear in bytes."""

from collections.abc import Callable
from typing import Literal

from torch import nn

from blt.nn import Linear, TransformerConfig
from blt.nn.transformer import RMSNorm
from blt.ops import attend_to_slots, attend_to_vectors, attend_within_slots
from blt.shapes import Float, Int, Tensor

Project = Callable[[Tensor], tuple[Tensor, Tensor]]
"""The k vectors of patches, `R P K D` → their keys and values, `R P K H E`."""
Select = Callable[[Project], tuple[Tensor, Tensor, Tensor | None]]
"""(what projects patches) → the keys and values that bytes attend to, `R P K H E`, and the slot of each byte, `B T`.

Slot P is none. Without slots each byte has its own, `B T K H E`; all zeros contribute nothing.
"""


class CrossAttention(nn.Module):
    """Projections and norms shared by both directions; no RoPE, no biases.

    Args:
        shape: of the stack that it belongs to; gives width, heads and norms.
        residual: how often the state is added to the attention output.
    """

    def __init__(self, shape: TransformerConfig, *, residual: Literal["once", "twice"]) -> None:
        super().__init__()
        dim = shape.dim
        self.num_heads = shape.num_heads
        self.residual = residual
        self.query_norm = RMSNorm(dim, epsilon=shape.norm_epsilon)
        self.source_norm = RMSNorm(dim, epsilon=shape.norm_epsilon)
        self.query = Linear(dim, dim)
        self.key = Linear(dim, dim)
        self.value = Linear(dim, dim)
        self.output = Linear(dim, dim)

    @property
    def residual_scale(self) -> int:
        """Factor of the state in the residual addition: 1 or 2."""
        return 1 if self.residual == "once" else 2

    def queries(self, states: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead H E"]:
        """Return the scaled queries."""
        projected = self.query(self.query_norm(states)).unflatten(-1, (self.num_heads, -1))
        return projected * projected.shape[-1] ** -0.5

    def keys_values(
        self, source: Float[Tensor, "*lead D"]
    ) -> tuple[Float[Tensor, "*lead H E"], Float[Tensor, "*lead H E"]]:
        """Return the keys and values of the source states."""
        normed = self.source_norm(source)
        split = (self.num_heads, -1)
        return self.key(normed).unflatten(-1, split), self.value(normed).unflatten(-1, split)

    def add(self, states: Float[Tensor, "*lead D"], values: Float[Tensor, "*lead H E"]) -> Float[Tensor, "*lead D"]:
        """Project the attention output and add the residual."""
        kept = states if self.residual_scale == 1 else self.residual_scale * states
        return kept + self.output(values.flatten(-2))


class PatchesReadBytes(CrossAttention):
    """The encoder's: each of a patch's k queries attends to that patch's own bytes only."""

    def forward(
        self, patch_queries: Float[Tensor, "B P K D"], byte_states: Float[Tensor, "B T D"], slots: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B P K D"]:
        """Return the patch queries after attention to their patch's bytes: those of its slot."""
        keys, values = self.keys_values(byte_states)  # B T H E
        gathered = attend_within_slots(self.queries(patch_queries), keys, values, slots)  # B P K H E
        return self.add(patch_queries, gathered)


class BytesReadPatch(CrossAttention):
    """The decoder's: each byte attends to the k vectors of the patch that it may read."""

    def forward(self, byte_states: Float[Tensor, "B T D"], select: Select) -> Float[Tensor, "B T D"]:
        """Return the byte states after attention to their readable patch; zeros are added where there is none.

        Args:
            byte_states: one per byte.
            select: says which keys and values the bytes attend to.
        """
        keys, values, slots = select(self.keys_values)  # R P K H E
        queries = self.queries(byte_states)
        if slots is None:
            return self.add(byte_states, attend_to_vectors(queries, keys, values))
        return self.add(byte_states, attend_to_slots(queries, keys, values, slots))
