"""Linear layers without bias."""

import torch
from torch import nn

from blt.ops.native.products import FusedLinear, multiplies
from blt.shapes import Float, Tensor


class Linear(nn.Linear):
    """A linear layer without bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, states: Float[Tensor, "*lead I"]) -> Float[Tensor, "*lead O"]:
        """Multiply by the weight; under autocast, in its precision."""
        is_bfloat16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        if is_bfloat16 and torch.is_grad_enabled() and multiplies(self.weight):
            return FusedLinear.of(states, self.weight)
        return super().forward(states)
