"""CPU kernels in C++, compiled once on the user's machine by its own compiler.

`training.cpp` holds what surrounds the matmuls, forward and backward; decoding has a program of its own, `blt.decoder`.
Without a compiler, or with the environment variable `BLT_NATIVE=0`, PyTorch does the same work, more slowly.
"""
