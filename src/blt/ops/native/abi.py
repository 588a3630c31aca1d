"""The C interface between Python and C++, with checked arguments.

Each function is declared once, in C syntax; `ctypes` takes its argument types from the declaration, and tensors are
checked against it: a pointer to float takes a float32 tensor, and so on. A test compares the table with the sources.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch

from blt.shapes import Tensor

KINDS = {torch.float32: 0, torch.bfloat16: 1}
"""The numbers by which C++ knows dtypes."""

_CROSS_FORWARD = "int32_t, void*, void*, void*, int64_t*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, void*"
_CROSS_BACKWARD = (
    "int32_t, void*, void*, void*, void*, int64_t*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, "
    "void*, void*, void*"
)
TRAINING = {
    "blt_bfloat16_products": "",
    "blt_use_tiles": "int32_t",
    "blt_norm_forward": "int32_t, int32_t, void*, float*, float, int64_t, int64_t, void*, float*",
    "blt_norm_backward": "int32_t, int32_t, void*, void*, float*, float*, int64_t, int64_t, void*, float*",
    "blt_swiglu_forward": "int32_t, void*, void*, int64_t, void*",
    "blt_swiglu_backward": "int32_t, void*, void*, void*, int64_t, void*, void*",
    "blt_sum_forward": "int32_t, float*, void*, float*, int64_t, int64_t, float*",
    "blt_sum_backward": "int32_t, float*, float*, int64_t, int64_t, void*",
    "blt_rotate": "int32_t, void*, float*, float*, int64_t, int64_t, int64_t, float, void*",
    "blt_attend_forward": ("int32_t, void*, void*, void*, int64_t*, int64_t, int64_t, int64_t, int64_t, void*, float*"),
    "blt_attend_backward": (
        "int32_t, void*, void*, void*, void*, void*, float*, int64_t*, int64_t, int64_t, int64_t, int64_t, "
        "void*, void*, void*"
    ),
    "blt_read_forward": _CROSS_FORWARD,
    "blt_read_backward": _CROSS_BACKWARD,
    "blt_pool_forward": _CROSS_FORWARD,
    "blt_pool_backward": _CROSS_BACKWARD,
    "blt_largest_forward": "int32_t, void*, int64_t*, int64_t, int64_t, int64_t, int64_t, void*, int64_t*",
    "blt_largest_backward": "int32_t, void*, int64_t*, int64_t, int64_t, int64_t, int64_t, void*",
    "blt_weight_gradient": "uint16_t*, uint16_t*, int64_t, int64_t, int64_t, float*",
    "blt_muon_step": "float*, float*, float*, int64_t, int64_t, float, float, float, float*, int64_t",
    "blt_scatter_rows": "float*, int64_t*, int64_t, int64_t, int64_t, int64_t, float*",
}
"""The functions of `training.cpp`; `void*` is an array of the kind that the first argument, or one of two, names."""
_NUMBERS = {"int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64, "float": ctypes.c_float}
_DTYPES = {
    "float*": torch.float32,
    "uint16_t*": torch.bfloat16,
    "int64_t*": torch.int64,
    "void*": None,  # of the dtype that an earlier argument names
}


def declare(found: ctypes.CDLL | None) -> ctypes.CDLL | None:
    """Declare the types of a library's functions, once."""
    if found is not None and getattr(found, next(iter(TRAINING))).argtypes is None:
        for function, declared in TRAINING.items():
            getattr(found, function).argtypes = [_ctype(each) for each in split(declared)]
            getattr(found, function).restype = ctypes.c_int32
    return found


def split(declared: str) -> list[str]:
    """Split a declaration into its argument types."""
    return declared.split(", ") if declared else []


def _ctype(declared: str) -> Any:
    return _NUMBERS.get(declared, ctypes.c_void_p)


_TYPES = {name: split(declared) for name, declared in TRAINING.items()}


def check_tensor(tensor: Tensor, dtype: torch.dtype | None, what: str) -> None:
    """Check that a tensor is what the kernel will read.

    Raises:
        ValueError: wrong dtype, not on the CPU, or not contiguous.
    """
    if dtype is not None and tensor.dtype is not dtype:
        raise ValueError(f"{what}: a tensor of {tensor.dtype}; the kernel reads {dtype}")
    if not tensor.is_cpu:
        raise ValueError(f"{what}: a tensor on {tensor.device}; the kernel reads memory of the CPU")
    if not tensor.is_contiguous():
        raise ValueError(f"{what}: a tensor of strides {tensor.stride()}; the kernel reads contiguous ones")


def call(functions: ctypes.CDLL, name: str, arguments: Sequence[Tensor | torch.dtype | int | float | None]) -> None:
    """Call a function of `TRAINING`: tensors by their addresses, None as a null pointer, dtypes as kinds.

    Raises:
        ValueError: a tensor of the wrong kind, or indices out of range or out of order.
        MemoryError: no memory for the workspace.
        RuntimeError: the library was compiled without it.
    """
    passed: list[Any] = []
    kinds = {argument for argument in arguments if isinstance(argument, torch.dtype)}
    for declared, argument in zip(_TYPES[name], arguments, strict=True):
        if isinstance(argument, Tensor):
            check_tensor(argument, _DTYPES[declared], name)
            if declared == "void*" and argument.dtype not in kinds:
                raise ValueError(f"{name}: a tensor of {argument.dtype} among those of {kinds}")
            passed.append(argument.data_ptr())
        else:
            passed.append(KINDS[argument] if isinstance(argument, torch.dtype) else argument)
    check_status(getattr(functions, name)(*passed), name)


def check_status(status: int, name: str) -> None:
    """Raise the exception of a `Status` other than success."""
    if status == 0:
        return
    if status == 1:
        raise MemoryError(f"{name}: no memory to work in")
    if status == 3:
        raise ValueError(
            f"{name}: indices out of bounds, or out of order (each slot's positions must be neighbours, and the first "
            "position that each one sees must never fall)"
        )
    raise RuntimeError(f"{name}: not supported on this processor")
