"""Steps of layers on a CPU in C++ (`kernels.cpp`), compiled once on the user's machine by the compiler that is there.

Without a compiler, or with the environment variable `BLT_NATIVE=0`, PyTorch does the same work, more slowly.
"""

from blt.nn.native.build import load
from blt.nn.native.kernels import NativeCrossAttention, NativeLayer, NativeLinear, serves

__all__ = ["NativeCrossAttention", "NativeLayer", "NativeLinear", "load", "serves"]
