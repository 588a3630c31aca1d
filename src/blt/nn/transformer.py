"""Transformer layers: pre-RMSNorm, RoPE self-attention, SwiGLU; no biases (the Llama block)."""

from collections.abc import Callable

import torch
from torch import nn

from blt.nn.attention import Attend, CausalPattern, SelfAttention, WindowPattern
from blt.nn.cache import KeyValueCache, RowInputs, StackInputs, StackState
from blt.nn.configuration import LocalConfig, TransformerConfig
from blt.nn.linear import Linear
from blt.nn.residual import add
from blt.ops import RotaryTable, rms_norm, rotary_frequencies, rotary_table, rotary_table_of, swiglu
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
    """A stack of layers; no embedding, no final norm.

    Training, prefill and decoding run the same layers: over whole rows by a pattern, or step by step over a state.

    Args:
        shape: of the layers; with a window, attention is to that many positions.
        theta: base of RoPE.
    """

    def __init__(self, shape: TransformerConfig, *, theta: float) -> None:
        super().__init__()
        self.shape, self.theta = shape, theta
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))
        self._frequencies: dict[torch.device, Tensor] = {}

    def forward(
        self, states: Float[Tensor, "B T D"], inputs: StackInputs, state: StackState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Run all layers.

        Args:
            states: one vector per position; a step has one position per row, `N 1 D`.
            inputs: the positions that the states are of.
            state: what the rows have read before, which takes in what they read now; None: nothing is kept.
        """
        run = self.prepare(inputs, state)
        for index in range(len(self.layers)):
            states = run(index, states)
        return states

    def prepare(self, inputs: StackInputs, state: StackState | None = None) -> Callable[[int, Tensor], Tensor]:
        """Return a function (index, states) → states that runs one layer, for callers with work between layers."""
        table = self.rotary_table(inputs)
        pattern = self.pattern(inputs) if isinstance(inputs, RowInputs) else None
        assert state is None or isinstance(state, KeyValueCache), "a state that `new_state` of this stack has made"
        attends = None if state is None else state.attends(inputs, pattern)

        def run(index: int, states: Tensor) -> Tensor:
            layer = self.layers[index]
            assert isinstance(layer, Layer)
            attend = pattern if attends is None else attends(index)
            # The residual stream keeps full precision.
            return layer(states.to(layer.attention_norm.weight.dtype), table, attend)

        return run

    def rotary_table(self, inputs: StackInputs) -> RotaryTable:
        """Return the angles of these positions; for steps, which are short, the frequencies are kept."""
        positions, head_dim = inputs.positions, self.shape.head_dim
        if isinstance(inputs, RowInputs):
            return rotary_table(positions, head_dim=head_dim, theta=self.theta)
        device = positions.device
        if device not in self._frequencies:
            self._frequencies[device] = rotary_frequencies(head_dim=head_dim, theta=self.theta, device=device)
        return rotary_table_of(positions, self._frequencies[device])

    def pattern(self, inputs: RowInputs) -> Attend:
        """Return what each position of whole rows attends to: its window, or all that precedes it in its segment."""
        if isinstance(self.shape, LocalConfig):
            return WindowPattern(inputs.segments, window=self.shape.window)
        return CausalPattern(inputs.segments)

    def new_state(self, *, batch: int, like: Tensor, max_rollback: int) -> StackState:
        """Return a state of empty rows.

        Args:
            batch: rows.
            like: a tensor with the device and dtype to use.
            max_rollback: how many positions can be read at once, and rolled back.
        """
        return KeyValueCache(self.shape, batch=batch, like=like, max_rollback=max_rollback)


def dtype_of_states(module: nn.Module) -> torch.dtype:
    """Return the type of a module's states and caches: that of its norms."""
    norms = [part.weight.dtype for part in module.modules() if isinstance(part, nn.RMSNorm)]
    return norms[0] if norms else torch.float32


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
