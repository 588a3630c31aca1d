"""Bricks: attention, transformer layers, segment reductions, caches. Nothing here knows of bytes or patches."""

from blt.nn.attention import Attend, CausalPattern, SelfAttention, WindowPattern
from blt.nn.rotary import RotaryTable, rotary_table, rotate
from blt.nn.segments import segment_max, segment_softmax, segment_sum, take
from blt.nn.transformer import FeedForward, Layer, Transformer, feed_forward_width, initialise

__all__ = [
    "Attend",
    "CausalPattern",
    "FeedForward",
    "Layer",
    "RotaryTable",
    "SelfAttention",
    "Transformer",
    "WindowPattern",
    "feed_forward_width",
    "initialise",
    "rotary_table",
    "rotate",
    "segment_max",
    "segment_softmax",
    "segment_sum",
    "take",
]
