"""Weights that cost fewer bytes to read: bfloat16, int8 with a scale per output, or int4 with one per block."""

from typing import Literal

import torch
from jaxtyping import UInt8
from torch import nn
from torch.nn import functional as F

from blt.shapes import Float, Tensor

WeightType = Literal["bfloat16", "int8", "int4"]
_STORED_AS: dict[torch.dtype, WeightType] = {torch.bfloat16: "bfloat16", torch.int8: "int8", torch.uint8: "int4"}
BLOCK = 32
"""Inputs of an output that share a scale in int4."""


class QuantizedLinear(nn.Module):
    """A linear layer whose weight is stored in fewer bytes; what enters and leaves keeps its precision.

    Args:
        linear: the layer to take the place of.
        stored_as: `bfloat16`; `int8` with one scale per output; or `int4` with one scale, in bfloat16, per output and
            block of 32 inputs.
    """

    def __init__(self, linear: nn.Linear, *, stored_as: WeightType) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        make = _empty if linear.weight.is_meta else _rounded
        weight, scale = make(linear.weight.detach(), stored_as)
        self.scale: Tensor | None
        """int8: `O`, float32; int4: `O N` for N blocks, bfloat16."""
        self.weight: Tensor
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    @property
    def stored_as(self) -> WeightType:
        """How the weight is stored."""
        return _STORED_AS[self.weight.dtype]

    def whole_weight(self) -> Float[Tensor, "O I"]:
        """Return the float32 matrix that the weight stands for."""
        if self.scale is None:
            return self.weight.float()
        if self.weight.dtype == torch.uint8:
            return unpack_int4(self.weight, self.scale, num_inputs=self.in_features)
        return self.weight.float() * self.scale[:, None]

    def forward(self, states: Float[Tensor, "*lead I"]) -> Float[Tensor, "*lead O"]:
        """Multiply as if the weight had been rounded to what is stored."""
        if self.weight.dtype == torch.uint8:
            return F.linear(states, self.whole_weight().to(states.dtype))
        product = F.linear(states, self.weight.to(states.dtype))
        return product if self.scale is None else product * self.scale.to(states.dtype)


def _rounded(weight: Float[Tensor, "O I"], stored_as: WeightType) -> tuple[Tensor, Tensor | None]:
    """Return what `QuantizedLinear` stores for a matrix, and its scales."""
    if stored_as == "int4":
        return pack_int4(weight)
    if stored_as == "bfloat16":
        return weight.to(torch.bfloat16), None
    scale = weight.float().abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


def _empty(weight: Float[Tensor, "O I"], stored_as: WeightType) -> tuple[Tensor, Tensor | None]:
    """Return tensors like those of `_rounded`, to be filled from a file.

    On the meta device rounding, and `empty_like`, would import PyTorch's compiler and take seconds.
    """
    num_outputs, num_inputs = weight.shape
    if stored_as == "int4":
        num_blocks = -(-num_inputs // BLOCK)
        packed = weight.new_empty(num_outputs, num_blocks * BLOCK // 2, dtype=torch.uint8)
        return packed, weight.new_empty(num_outputs, num_blocks, dtype=torch.bfloat16)
    if stored_as == "bfloat16":
        return weight.new_empty(weight.shape, dtype=torch.bfloat16), None
    return weight.new_empty(weight.shape, dtype=torch.int8), weight.new_empty(num_outputs, dtype=torch.float32)


def pack_int4(weight: Float[Tensor, "O I"]) -> tuple[UInt8[Tensor, "O C"], Float[Tensor, "O N"]]:
    """Round a matrix to 16 levels per block.

    A block's scale is the one, of some below that of its largest weight, that loses least; levels are −8 to 7.

    Returns:
        Two levels to a byte, the first in its lower half, each with 8 added; and the scales, in bfloat16. A last block
        that is not full is filled with zeros.
    """
    padding = -weight.shape[1] % BLOCK
    blocks = F.pad(weight.float(), (0, padding)).view(len(weight), -1, BLOCK)  # O N 32
    largest = blocks.gather(2, blocks.abs().argmax(2, keepdim=True))
    best_scale = torch.zeros_like(largest)
    best_loss = torch.full_like(largest, torch.inf)
    for share in torch.linspace(0.7, 1.0, 13, device="cpu").tolist():
        scale = (share * largest / -8).to(torch.bfloat16).float()
        loss = (blocks - _levels(blocks, scale) * scale).square().sum(2, keepdim=True)
        best_scale, best_loss = torch.where(loss < best_loss, scale, best_scale), torch.minimum(loss, best_loss)
    levels = (_levels(blocks, best_scale) + 8).to(torch.uint8).flatten(1)
    return levels[:, ::2] | levels[:, 1::2] << 4, best_scale[..., 0].to(torch.bfloat16)


def unpack_int4(packed: UInt8[Tensor, "O C"], scale: Float[Tensor, "O N"], *, num_inputs: int) -> Float[Tensor, "O I"]:
    """Return the float32 matrix that int4 stands for."""
    levels = torch.stack([packed & 15, packed >> 4], dim=2).flatten(1).float() - 8  # O N·32
    return (levels.view(len(levels), -1, BLOCK) * scale.float()[:, :, None]).flatten(1)[:, :num_inputs]


def _levels(blocks: Float[Tensor, "O N 32"], scale: Float[Tensor, "O N 1"]) -> Float[Tensor, "O N 32"]:
    return (blocks / torch.where(scale == 0, 1, scale)).round().clamp(-8, 7)


def quantize_weights_(module: nn.Module, *, stored_as: WeightType) -> None:
    """Replace every linear layer within, in place; embeddings and norms stay as they are."""
    for name, part in list(module.named_children()):
        if isinstance(part, nn.Linear):
            setattr(module, name, QuantizedLinear(part, stored_as=stored_as))
        else:
            quantize_weights_(part, stored_as=stored_as)


def requantize_weights_(module: nn.Module, *, stored_as: WeightType | None) -> None:
    """Store the weights of every linear layer within as `stored_as`, in place.

    Args:
        module: its embeddings and norms stay as they are.
        stored_as: None for floating-point numbers: what rounding took from quantised weights stays lost.
    """
    if quantized_as(module) not in (None, stored_as):
        _dequantize(module)
    if stored_as is not None and quantized_as(module) is None:
        quantize_weights_(module, stored_as=stored_as)


def quantized_as(module: nn.Module) -> WeightType | None:
    """Return how the linear layers within are stored; None where they are not quantised."""
    return next((part.stored_as for part in module.modules() if isinstance(part, QuantizedLinear)), None)


def _dequantize(module: nn.Module) -> None:
    for name, part in list(module.named_children()):
        if isinstance(part, QuantizedLinear):
            linear = nn.Linear(part.in_features, part.out_features, bias=False, device="meta", dtype=torch.float32)
            linear.weight = nn.Parameter(part.whole_weight())
            setattr(module, name, linear)
        else:
            _dequantize(part)
