"""The precision of decoding."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

import torch

Given = ParamSpec("Given")
Result = TypeVar("Result")
_DEVICE_TYPES = ("cpu", "cuda", "mps", "xpu")


def without_autocast(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a function to run in the precision of the weights, with any surrounding autocast disabled.

    Autocast rounds a whole pass and a step in different places: only without it does a cached step agree with the full
    forward pass.
    """

    @functools.wraps(function)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        enabled = [kind for kind in _DEVICE_TYPES if torch.is_autocast_enabled(kind)]
        if not enabled:
            return function(*args, **kwargs)
        with ExitStack() as stack:
            for kind in enabled:
                stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*args, **kwargs)

    return run
