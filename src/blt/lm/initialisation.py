"""Modules whose weights are filled later need no initial ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from blt.shapes import Tensor


class WithoutInitialisation(TorchFunctionMode):
    """Within it, the functions of `torch.nn.init` leave new weights as they are; a subclass may do something instead.

    On the meta device, where there is nothing to draw, they would import PyTorch's compiler, which takes a second.
    """

    also: tuple[Callable[..., Any], ...] = ()
    """Further functions that it takes, of a tensor in place."""

    def instead(self, func: Callable[..., Any], tensor: Tensor, run: Callable[[Tensor], Any]) -> None:
        """Do what takes the place of a function.

        Args:
            func: the function.
            tensor: what it would fill or change in place.
            run: the function with its other arguments, of this tensor or of another.
        """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function, or do what takes its place and return its tensor."""
        kwargs = dict(kwargs or {})
        is_of_init = getattr(func, "__module__", None) == nn.init.__name__
        if not (is_of_init or func in self.also):
            return func(*args, **kwargs)
        tensor, rest = (kwargs.pop("tensor"), args) if "tensor" in kwargs else (args[0], args[1:])
        assert isinstance(tensor, Tensor)
        self.instead(func, tensor, lambda other: func(other, *rest, **kwargs))
        return tensor
