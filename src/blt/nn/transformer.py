"""Transformer layers: pre-RMSNorm, RoPE self-attention, SwiGLU; no biases (the Llama block)."""

from collections.abc import Sequence

import torch
from torch import nn

from blt.nn.attention import Attend, SelfAttention
from blt.nn.configuration import TransformerConfig
from blt.nn.linear import Linear
from blt.nn.residual import add
from blt.ops import RotaryTable, rms_norm, swiglu
from blt.shapes import Float, Tensor


class RMSNorm(nn.RMSNorm):
    """RMSNorm (Zhang and Sennrich 2019), computed in its weight's precision even under autocast."""

    def __init__(self, dim: int, *, epsilon: float) -> None:
        super().__init__(dim, eps=epsilon)

    def forward(self, states: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """Normalise each state to mean square 1 and apply the weight."""
        assert self.eps is not None
        return rms_norm(states, self.weight, epsilon=self.eps)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, dim: int, *, hidden: int) -> None:
        super().__init__()
        self.gate = Linear(dim, hidden)
        self.up = Linear(dim, hidden)
        self.down = Linear(hidden, dim)

    def forward(self, states: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Apply the feed-forward layer to each position."""
        return self.down(swiglu(self.gate(states), self.up(states)))


class Layer(nn.Module):
    """One pre-norm layer: attention, then feed-forward, each with a residual connection.

    `dropout`, 0 by default, is the probability that a position skips either of the two in training (stochastic depth).
    """

    def __init__(self, shape: TransformerConfig) -> None:
        super().__init__()
        self.dropout = 0.0
        self.attention_norm = RMSNorm(shape.dim, epsilon=shape.norm_epsilon)
        self.attention = SelfAttention(shape.dim, num_heads=shape.num_heads)
        self.feed_forward_norm = RMSNorm(shape.dim, epsilon=shape.norm_epsilon)
        self.feed_forward = FeedForward(shape.dim, hidden=shape.feed_forward_width)

    def forward(self, states: Float[Tensor, "B T D"], table: RotaryTable, attend: Attend) -> Float[Tensor, "B T D"]:
        """Return the states after this layer."""
        dropout = self.dropout if self.training else 0.0
        states = add(states, self.attention(self.attention_norm(states), table, attend), dropout=dropout)
        return add(states, self.feed_forward(self.feed_forward_norm(states)), dropout=dropout)


class Transformer(nn.Module):
    """A stack of layers; no embedding, no final norm."""

    def __init__(self, shape: TransformerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))

    def forward(
        self, states: Float[Tensor, "B T D"], table: RotaryTable, attends: Attend | Sequence[Attend]
    ) -> Float[Tensor, "B T D"]:
        """Run all layers.

        Args:
            states: one vector per position.
            table: angles of the positions.
            attends: one pattern for all layers, or one per layer.
        """
        first = self.layers[0]
        assert isinstance(first, Layer)
        states = states.to(first.attention_norm.weight.dtype)  # the residual stream keeps full precision
        for index, layer in enumerate(self.layers):
            states = layer(states, table, attends[index] if isinstance(attends, Sequence) else attends)
        return states


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """Initialise weights: normal of variance 1/inputs; residual output projections are scaled by 0.1/√(2·layers)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
        elif isinstance(part, RMSNorm):
            nn.init.ones_(part.weight)
    for stack in module.modules():
        if isinstance(stack, Transformer):
            scale = 0.1 * (2 * max(1, len(stack.layers))) ** -0.5
            for layer in stack.layers:
                assert isinstance(layer, Layer)
                layer.attention.output.weight.mul_(scale)
                layer.feed_forward.down.weight.mul_(scale)
