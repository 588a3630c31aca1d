"""Numeric operations, and the native kernels that compute them on a CPU."""
