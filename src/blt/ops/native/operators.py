"""Native kernels as PyTorch operators.

Each is declared in the library `blt` by its schema, with a kernel for the CPU and a fake one, which gives shapes alone:
`torch.compile`, profilers and fake tensors see `torch.ops.blt.NAME`. A backward is an operator of its own. The kernels
reach C++ by ctypes, so that the compiled library does not depend on PyTorch's C++ interface.
"""

import ctypes
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from blt.ops.native.abi import call as call_function
from blt.ops.native.abi import declare
from blt.ops.native.build import load
from blt.shapes import Tensor

DTYPES = (torch.float32, torch.bfloat16)
MULTIPLE = 16
"""Widths of rows are multiples of the SIMD width."""

_Function = TypeVar("_Function", bound=Callable[..., object])
_LIBRARY = torch.library.Library("blt", "DEF")  # type: ignore[no-untyped-call]


def library() -> ctypes.CDLL | None:
    """Return the functions of `training.cpp`; None where they cannot be compiled."""
    return declare(load("training"))


def constant_when_compiled(function: _Function) -> _Function:
    """Decorate a function whose result `torch.compile` may take for a constant.

    As `torch.compiler.assume_constant_result`, which imports the whole of the compiler, a second at each start.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]  # noqa: SLF001 (its own mark)
    return function


@constant_when_compiled
def is_available() -> bool:
    """Whether there are native kernels."""
    return library() is not None


def serves(*tensors: Tensor, widths: tuple[int, ...] = ()) -> bool:
    """Whether the kernels take these: on a CPU, of one supported dtype, with widths in multiples of the SIMD width."""
    first = tensors[0]
    return (
        first.dtype in DTYPES
        and all(part.device.type == "cpu" and part.dtype == first.dtype for part in tensors)
        and all(width % MULTIPLE == 0 for width in widths)
    )


def call(name: str, *arguments: Tensor | torch.dtype | int | float | None) -> None:
    """Call a function of `training.cpp`; see `blt.ops.native.abi.call`."""
    functions = library()
    assert functions is not None, "only called where this is known"
    call_function(functions, f"blt_{name}", arguments)


def check_equal(name: str, *shapes: tuple[int, ...]) -> None:
    """Check that shapes are equal, which the kernels rely on.

    Raises:
        ValueError: they are not.
    """
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"{name}: shapes {', '.join(str(tuple(shape)) for shape in shapes)}; expected equal shapes")


def define(schema: str, kernel: Callable[..., Any], *, fake: Callable[..., Any]) -> torch._ops.OpOverload:
    """Declare an operator.

    Args:
        schema: name, arguments and results, as `torch.library` writes them.
        kernel: computes it on a CPU; may take tensors of any strides, and returns contiguous ones of its own.
        fake: returns empty tensors of the shapes and dtypes that the kernel returns.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)  # type: ignore[no-untyped-call]
    _LIBRARY.impl(name, kernel, "CPU")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"blt::{name}", fake, lib=_LIBRARY)
    found: torch._ops.OpOverload = getattr(torch.ops.blt, name).default
    return found


def differentiate(
    found: torch._ops.OpOverload, backward: Callable[..., Any], *, setup: Callable[[Any, tuple[Any, ...], Any], None]
) -> None:
    """Declare the backward of an operator.

    Args:
        found: the operator; of several results, the first is the only one that is differentiated.
        backward: (context, gradient of the result) → gradients of the inputs.
        setup: (context, inputs, results): saves what the backward needs.
    """

    def prepare(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, tuple):
            ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # the others' would be zeros
        setup(ctx, inputs, output)

    def of_first(ctx: Any, given: Tensor, *_: None) -> Any:
        return backward(ctx, given)

    torch.library.register_autograd(found, of_first, setup_context=prepare, lib=_LIBRARY)
