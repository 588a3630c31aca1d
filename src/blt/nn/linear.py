"""Linear layers without bias."""

from torch import nn

from blt.ops import linear
from blt.shapes import Float, Tensor


class Linear(nn.Linear):
    """A linear layer without bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, states: Float[Tensor, "*lead I"]) -> Float[Tensor, "*lead O"]:
        """Multiply by the weight; under autocast, in its precision."""
        return linear(states, self.weight)
