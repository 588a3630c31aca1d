"""Stacks and matrices that run a few positions at a time: by the kernels where they serve, else by PyTorch.

Both ways compute the same; the kernels read each weight once, whatever the number of positions.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from blt.nn.cache import KeyValueCache, StepInputs
from blt.nn.native.kernels import NativeLayer, NativeLinear, NativeStepInputs, serves
from blt.nn.rotary import RotaryTable, rotary_frequencies
from blt.nn.transformer import Layer, RMSNorm, Transformer
from blt.nn.weights import QuantizedLinear
from blt.shapes import Float, Tensor


class LayerInputs(NamedTuple):
    """Where a stack's positions stand."""

    places: StepInputs
    """Rows and positions."""
    table: RotaryTable
    """Angles of the positions, as `N 1 1 E`."""
    native: NativeStepInputs | None
    """For the kernels, where they serve."""


class StackSteps:
    """A stack of layers that reads a few positions of some rows at a time, and keeps what they have seen.

    Args:
        stack: the layers.
        cache: of that stack.
        head_dim: width of a head.
        theta: base of RoPE.
    """

    def __init__(self, stack: Transformer, *, cache: KeyValueCache, head_dim: int, theta: float) -> None:
        self.cache = cache
        self._layers = [layer for layer in stack.layers if isinstance(layer, Layer)]
        self._frequencies = rotary_frequencies(head_dim=head_dim, theta=theta, device=cache.keys.device)
        self._native = [NativeLayer(layer) for layer in self._layers] if are_native(stack, cache.keys) else None

    def prepare(self, places: StepInputs) -> LayerInputs:
        """Work out once what all layers need to know of these places."""
        self.cache.make_room(places.longest)
        angles = places.positions[:, None, None, None].float() * self._frequencies
        table = RotaryTable(angles.cos(), angles.sin())
        native = None if self._native is None else NativeStepInputs(places.rows, places.positions, table)
        return LayerInputs(places, table, native)

    def run(self, states: Float[Tensor, "N D"], places: StepInputs) -> Float[Tensor, "N D"]:
        """Run all layers; one state per place."""
        inputs = self.prepare(places)
        for index in range(len(self._layers)):
            states = self.layer(index, states, inputs)
        return states

    def layer(self, index: int, states: Float[Tensor, "N D"], inputs: LayerInputs) -> Float[Tensor, "N D"]:
        """Run one layer."""
        places, table, native = inputs
        if self._native is None or native is None:
            return self._layers[index](states[:, None], table, self.cache.attend(index, places))[:, 0]
        keys, values = self.cache.keys[index], self.cache.values[index]
        window = self.cache.window or self.cache.num_slots
        return self._native[index](states, native, keys=keys, values=values, window=window)


class LinearSteps:
    """A matrix, after a norm if there is one, for a few vectors at a time.

    Args:
        linear: the layer, or its weight alone.
        norm: applied first.
    """

    def __init__(self, linear: nn.Module | Tensor, *, norm: RMSNorm | None = None) -> None:
        self._linear, self._norm = linear, norm
        weight = linear if isinstance(linear, Tensor) else linear.weight
        assert isinstance(weight, Tensor)
        self._native = NativeLinear(linear, norm=norm) if serves([weight]) else None

    def __call__(self, states: Float[Tensor, "N D"]) -> Float[Tensor, "N E"]:
        """Multiply each."""
        if self._native is not None:
            return self._native(states)
        normed = states if self._norm is None else self._norm(states)
        return F.linear(normed, self._linear) if isinstance(self._linear, Tensor) else self._linear(normed)


def are_native(module: nn.Module, *further: Tensor) -> bool:
    """Whether the kernels serve a module: all of its linear layers, and caches in float32."""
    weights = [part.weight for part in module.modules() if isinstance(part, (nn.Linear, QuantizedLinear))]
    return all(part.dtype == torch.float32 for part in further) and serves([*weights, *further])


def dtype_of_states(module: nn.Module) -> torch.dtype:
    """Return the type of states and caches of a module: float32 wherever the kernels serve, else that of its norms."""
    norms = [part.weight.dtype for part in module.modules() if isinstance(part, nn.RMSNorm)]
    return torch.float32 if are_native(module) or not norms else norms[0]
