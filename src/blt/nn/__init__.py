"""Bricks: attention, transformer layers, segment reductions, caches. Nothing here knows of bytes or patches."""

from blt.nn.attention import Attend, CausalPattern, SelfAttention, WindowPattern
from blt.nn.cache import GrowingCache, KeyValueCache, Place, Recording, WindowCache
from blt.nn.configuration import LocalConfig, TransformerConfig
from blt.nn.rotary import RotaryTable, rotary_table, rotate
from blt.nn.segments import in_last_segment, run_positions, segment_max, segment_softmax, segment_sum, take
from blt.nn.transformer import FeedForward, Layer, Transformer, initialise

__all__ = [
    "Attend",
    "CausalPattern",
    "FeedForward",
    "GrowingCache",
    "KeyValueCache",
    "Layer",
    "LocalConfig",
    "Place",
    "Recording",
    "RotaryTable",
    "SelfAttention",
    "Transformer",
    "TransformerConfig",
    "WindowCache",
    "WindowPattern",
    "in_last_segment",
    "initialise",
    "rotary_table",
    "rotate",
    "run_positions",
    "segment_max",
    "segment_softmax",
    "segment_sum",
    "take",
]
