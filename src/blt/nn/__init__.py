"""Building blocks: attention, transformer layers, caches, quantised weights. Independent of bytes and patches."""

from blt.nn.attention import Attend, CausalPattern, SelfAttention, WindowPattern
from blt.nn.cache import HostInts, KeyValueCache, RowInputs, StackInputs, StackState, StepInputs
from blt.nn.configuration import LocalConfig, TransformerConfig
from blt.nn.linear import Linear
from blt.nn.transformer import FeedForward, Layer, Transformer, dtype_of_states, initialise
from blt.nn.weights import QuantizedLinear, WeightType, quantize_weights_, quantized_as, requantize_weights_

__all__ = [
    "Attend",
    "CausalPattern",
    "FeedForward",
    "HostInts",
    "KeyValueCache",
    "Layer",
    "Linear",
    "LocalConfig",
    "QuantizedLinear",
    "RowInputs",
    "SelfAttention",
    "StackInputs",
    "StackState",
    "StepInputs",
    "Transformer",
    "TransformerConfig",
    "WeightType",
    "WindowPattern",
    "dtype_of_states",
    "initialise",
    "quantize_weights_",
    "quantized_as",
    "requantize_weights_",
]
