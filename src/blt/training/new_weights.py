"""New weights of a model that is built on the meta device, drawn so that each rank keeps its part alone.

The numbers are those that one process would have drawn. It draws all weights in the order of the modules from one
generator, which cannot be wound forward; so every rank draws all of them too, some rows at a time, and keeps what is
its own. That costs each rank the time of drawing everything, once (10 billion numbers: minutes), and the memory of a
few rows.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from blt.lm.initialisation import WithoutInitialisation
from blt.shapes import Tensor

CHUNK = 2**22
"""Numbers that are drawn at once, about."""
BLOCK = 16
"""PyTorch draws normal numbers on a CPU in blocks of 16, from as many uniform ones: parts of whole blocks, and of one
at least, are drawn like the whole."""

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The part of a weight that this rank keeps."""

    local: Tensor
    """Where it lies."""
    dim: int
    """The dimension that is divided."""
    start: int
    """Where the part begins in it."""

    def take(self, rows: Tensor, *, first: int) -> None:
        """Copy what is this rank's out of some rows of the whole, of which `first` is the first one's number."""
        if self.dim == 1:
            self.local[first : first + len(rows)] = rows[:, self.start : self.start + self.local.shape[1]]
            return
        low, high = max(first, self.start), min(first + len(rows), self.start + len(self.local))
        if low < high:
            self.local[low - self.start : high - self.start] = rows[low - first : high - first]


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A function that fills or scales a tensor in place."""

    tensor: Tensor
    run: Callable[[Tensor], Any]
    is_filling: bool


class _Recorder(WithoutInitialisation):
    """Notes what would be drawn, instead of drawing it."""

    also = (Tensor.mul_, Tensor.fill_)

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []

    def instead(self, func: Callable[..., Any], tensor: Tensor, run: Callable[[Tensor], Any]) -> None:
        """Note a function of `torch.nn.init`, or one in place on a weight."""
        self.calls.append(_Call(tensor=tensor, run=run, is_filling=func is not Tensor.mul_))


class NewWeights(Generic[Module]):
    """A module on the meta device, and how its weights are to be drawn."""

    def __init__(self, build: Callable[[], Module], *, is_needed: bool = True) -> None:
        """Build a module without memory; the state of the generator is that of now.

        Args:
            build: makes it, and draws with PyTorch's default generator of the CPU.
            is_needed: whether its weights will be drawn: not if a checkpoint replaces them.
        """
        recorder = _Recorder()
        with torch.device("meta"), recorder:
            self.module = build()
        self.is_needed = is_needed
        self._calls, self._state = recorder.calls, torch.get_rng_state()
        self._names = {id(weight): name for name, weight in self.module.named_parameters()}

    @torch.no_grad()
    def draw(self, parts: Mapping[str, Part]) -> None:
        """Draw all weights, and keep the parts; leaves the generator as building the module with memory would.

        Args:
            parts: of every weight, by name.
        """
        if not self.is_needed:
            return
        torch.set_rng_state(self._state)
        last = {id(call.tensor): number for number, call in enumerate(self._calls) if call.is_filling}
        for number, call in enumerate(self._calls):
            if not call.is_filling:
                continue
            key = id(call.tensor)
            name = (
                self._names.get(key) if last[key] == number else None
            )  # else what is drawn is drawn again, or dropped
            after = [other.run for other in self._calls[number + 1 :] if other.tensor is call.tensor and name]
            for first, count in chunks(tuple(call.tensor.shape)):
                rows = torch.empty((count, *call.tensor.shape[1:]), dtype=call.tensor.dtype)
                call.run(rows)
                for run in after:
                    run(rows)
                if name is not None:
                    parts[name].take(rows, first=first)


def chunks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield the first row and the number of rows of each chunk: whole blocks, and the last one of a block at least."""
    total, width = shape[0], max(1, math.prod(shape[1:]))
    size = max(1, CHUNK // (width * BLOCK)) * BLOCK
    first = 0
    while first < total:
        count = size if (total - first - size) * width >= BLOCK else total - first
        yield first, count
        first += count
