"""One name for each operation, and the one place that chooses what computes it."""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, ParamSpec, TypeVar

import torch

from blt.ops.native.operators import is_available

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Operator(Generic[Given, Result]):
    """An operation: a PyTorch reference, and a native kernel that takes its place where it can.

    The reference is composed of PyTorch's own operators, so that it runs on every device and autograd, `torch.compile`
    and fake tensors see through it. The native kernel is a PyTorch operator of its own (`torch.ops.blt`), with a fake
    implementation and a backward. Both take the same arguments and agree up to rounding.

    Args:
        reference: the function in PyTorch; its signature is the operation's.
        native: the function by a native kernel.
        serves: whether the native kernel takes these arguments.
        is_fused_by_compiler: whether `torch.compile` generates code from the reference; else it calls the kernel.
    """

    def __init__(
        self,
        reference: Callable[Given, Result],
        *,
        native: Callable[Given, Result],
        serves: Callable[Given, bool],
        is_fused_by_compiler: bool,
    ) -> None:
        self.reference, self.native, self._serves = reference, native, serves
        self.is_fused_by_compiler = is_fused_by_compiler
        functools.update_wrapper(self, reference)

    def __call__(self, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        """Compute by the kernel that `is_native` tells."""
        return (self.native if self.is_native(*args, **kwargs) else self.reference)(*args, **kwargs)

    def is_native(self, *args: Given.args, **kwargs: Given.kwargs) -> bool:
        """Whether the native kernel computes these arguments."""
        return self.may_be_native() and self._serves(*args, **kwargs) and is_available()

    def may_be_native(self) -> bool:
        """Whether the native kernel computes anything now: it is left out on request, and where a compiler fuses."""
        return not (_forced_reference or (self.is_fused_by_compiler and torch.compiler.is_compiling()))


OPERATORS: dict[str, Operator[..., Any]] = {}
"""Every operation that a native kernel can compute, by its name."""
_forced_reference = os.environ.get("BLT_NATIVE") == "0"


def operator(
    *, native: Callable[Given, Result], serves: Callable[Given, bool], is_fused_by_compiler: bool = False
) -> Callable[[Callable[Given, Result]], Operator[Given, Result]]:
    """Decorate a PyTorch reference to be an operation that a native kernel computes where it can; see `Operator`."""

    def register(reference: Callable[Given, Result]) -> Operator[Given, Result]:
        found = Operator(reference, native=native, serves=serves, is_fused_by_compiler=is_fused_by_compiler)
        OPERATORS[reference.__name__] = found
        return found

    return register


@contextmanager
def only_references() -> Iterator[None]:
    """Compute everything by PyTorch's own operators within, as the environment variable BLT_NATIVE=0 does."""
    global _forced_reference
    before, _forced_reference = _forced_reference, True
    try:
        yield
    finally:
        _forced_reference = before
