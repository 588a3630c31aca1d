"""The whole of decoding in one native program: packed weights, caches and rows in C++, one call per step.

In: bytes of some rows. Out: logits, and where patches end. Next: `blt.lm.session`, which chooses
between this and PyTorch.

`core` stands on its own: C++17 without a header of Python, PyTorch or OpenMP; `api.h` is its interface.
"""

from blt.decoder.decoding import NativeDecoding, kernels
from blt.decoder.generation import GenerationRow, PlainSampling
from blt.decoder.packed import PackedModel, packed_model, product_rate, reading_rate, serves

__all__ = [
    "GenerationRow",
    "NativeDecoding",
    "PackedModel",
    "PlainSampling",
    "kernels",
    "packed_model",
    "product_rate",
    "reading_rate",
    "serves",
]
