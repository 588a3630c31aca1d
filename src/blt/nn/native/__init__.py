"""What is computed on a CPU in C++, compiled once on the user's machine by the compiler that is there.

`kernels.cpp` steps layers in generation; `training.cpp` holds what surrounds the products of matrices in training.
Without a compiler, or with the environment variable `BLT_NATIVE=0`, PyTorch does the same work, more slowly.
"""
