"""Weights that cost fewer bytes to read: bfloat16, or int8 with a scale per output."""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from blt.shapes import Float, Tensor

WeightType = Literal["bfloat16", "int8"]


class QuantizedLinear(nn.Module):
    """A linear layer whose weight is stored in fewer bytes; what enters and leaves keeps its precision.

    Args:
        linear: the layer to take the place of.
        stored_as: `bfloat16`, or `int8` with one scale per output.
    """

    def __init__(self, linear: nn.Linear, *, stored_as: WeightType) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        self.scale: Float[Tensor, " O"] | None
        self.weight: Tensor
        if stored_as == "int8":
            scale = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
            self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
            self.register_buffer("scale", scale)
        else:
            self.register_buffer("weight", weight.to(torch.bfloat16))
            self.register_buffer("scale", None)

    def forward(self, states: Float[Tensor, "*lead I"]) -> Float[Tensor, "*lead O"]:
        """Multiply as if the weight had been rounded to what is stored."""
        product = F.linear(states, self.weight.to(states.dtype))
        return product if self.scale is None else product * self.scale.to(states.dtype)


def quantize_weights_(module: nn.Module, *, stored_as: WeightType) -> None:
    """Replace every linear layer within, in place; embeddings and norms stay as they are."""
    for name, part in list(module.named_children()):
        if isinstance(part, nn.Linear):
            setattr(module, name, QuantizedLinear(part, stored_as=stored_as))
        else:
            quantize_weights_(part, stored_as=stored_as)
