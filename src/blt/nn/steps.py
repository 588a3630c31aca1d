"""A stack of layers that reads a few positions of some rows at a time, by PyTorch alone.

It is the second way of decoding, on any device; on a CPU with a compiler the native decoder (`blt.decoder`) takes its
place.
"""

from typing import NamedTuple

import torch
from torch import nn

from blt.nn.cache import KeyValueCache, StepInputs
from blt.nn.transformer import Layer, Transformer
from blt.ops import RotaryTable, rotary_frequencies
from blt.shapes import Float, Tensor


class LayerInputs(NamedTuple):
    """What all layers of a stack need to know of the positions that they read."""

    places: StepInputs
    """Rows and positions."""
    table: RotaryTable
    """Angles of the positions, as `N 1 1 E`."""


class StackSteps:
    """A stack of layers run incrementally over a KV cache, a few positions of some rows at a time.

    Args:
        stack: the layers.
        cache: the stack's KV cache.
        head_dim: width of a head.
        theta: base of RoPE.
    """

    def __init__(self, stack: Transformer, *, cache: KeyValueCache, head_dim: int, theta: float) -> None:
        self.cache = cache
        self._layers = [layer for layer in stack.layers if isinstance(layer, Layer)]
        self._frequencies = rotary_frequencies(head_dim=head_dim, theta=theta, device=cache.keys.device)

    def prepare(self, places: StepInputs) -> LayerInputs:
        """Compute once what all layers need to know of these positions."""
        self.cache.make_room(places.longest)
        angles = places.positions[:, None, None, None].float() * self._frequencies
        return LayerInputs(places, RotaryTable(angles.cos(), angles.sin()))

    def run(self, states: Float[Tensor, "N D"], places: StepInputs) -> Float[Tensor, "N D"]:
        """Run all layers; one state per position."""
        inputs = self.prepare(places)
        for index in range(len(self._layers)):
            states = self.layer(index, states, inputs)
        return states

    def layer(self, index: int, states: Float[Tensor, "N D"], inputs: LayerInputs) -> Float[Tensor, "N D"]:
        """Run one layer."""
        places, table = inputs
        return self._layers[index](states[:, None], table, self.cache.attend(index, places))[:, 0]


def dtype_of_states(module: nn.Module) -> torch.dtype:
    """Return the type of a module's states and caches: that of its norms."""
    norms = [part.weight.dtype for part in module.modules() if isinstance(part, nn.RMSNorm)]
    return norms[0] if norms else torch.float32
