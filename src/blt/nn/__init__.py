"""Bricks: attention, transformer layers, segment reductions, caches. Nothing here knows of bytes or patches."""

from blt.nn.attention import Attend, CausalPattern, SelfAttention, WindowPattern
from blt.nn.configuration import LocalConfig, TransformerConfig
from blt.nn.rotary import RotaryTable, rotary_table, rotate
from blt.nn.segments import run_positions, segment_max, segment_softmax, segment_sum, take
from blt.nn.transformer import FeedForward, Layer, Transformer, feed_forward_width, initialise

__all__ = [
    "Attend",
    "CausalPattern",
    "FeedForward",
    "Layer",
    "LocalConfig",
    "RotaryTable",
    "SelfAttention",
    "Transformer",
    "TransformerConfig",
    "WindowPattern",
    "feed_forward_width",
    "initialise",
    "rotary_table",
    "rotate",
    "run_positions",
    "segment_max",
    "segment_softmax",
    "segment_sum",
    "take",
]
