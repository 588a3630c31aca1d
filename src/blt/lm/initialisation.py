"""Modules whose weights are filled later need no initial ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class WithoutInitialisation(TorchFunctionMode):
    """Leaves new weights as they are: within it, the functions of `torch.nn.init` do nothing.

    On the meta device, where there is nothing to draw, they would import PyTorch's compiler, which takes a second.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function, or return its tensor unchanged."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            tensor = args[0] if args else kwargs["tensor"]
            assert isinstance(tensor, torch.Tensor)
            return tensor
        return func(*args, **kwargs)
