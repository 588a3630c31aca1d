"""Building blocks: attention, transformer layers, segment reductions, caches. Independent of bytes and patches."""

from blt.nn.attention import Attend, CausalPattern, SelfAttention, WindowPattern, computes_runs
from blt.nn.cache import HostInts, KeyValueCache, KVRecorder, StepInputs
from blt.nn.configuration import LocalConfig, TransformerConfig
from blt.nn.linear import Linear
from blt.nn.precision import without_autocast
from blt.nn.rotary import RotaryTable, rotary_table, rotate
from blt.nn.segments import (
    attend_to_slots,
    attend_to_vectors,
    attend_within_slots,
    embedding_bag,
    in_last_segment,
    run_positions,
    segment_max,
    segment_softmax,
    segment_sum,
    take,
)
from blt.nn.steps import StackSteps, dtype_of_states
from blt.nn.transformer import FeedForward, Layer, Transformer, initialise
from blt.nn.weights import QuantizedLinear, WeightType, quantize_weights_, quantized_as, requantize_weights_

__all__ = [
    "Attend",
    "CausalPattern",
    "FeedForward",
    "HostInts",
    "KVRecorder",
    "KeyValueCache",
    "Layer",
    "Linear",
    "LocalConfig",
    "QuantizedLinear",
    "RotaryTable",
    "SelfAttention",
    "StackSteps",
    "StepInputs",
    "Transformer",
    "TransformerConfig",
    "WeightType",
    "WindowPattern",
    "attend_to_slots",
    "attend_to_vectors",
    "attend_within_slots",
    "computes_runs",
    "dtype_of_states",
    "embedding_bag",
    "in_last_segment",
    "initialise",
    "quantize_weights_",
    "quantized_as",
    "requantize_weights_",
    "rotary_table",
    "rotate",
    "run_positions",
    "segment_max",
    "segment_softmax",
    "segment_sum",
    "take",
    "without_autocast",
]
