"""The functions of `kernels.cpp`, bound to the weights of modules."""

from collections.abc import Iterable

import torch
from torch import nn

from blt.nn.native import abi
from blt.nn.native.abi import KINDS, check_status, check_tensor
from blt.nn.native.build import load
from blt.nn.rotary import RotaryTable
from blt.nn.transformer import Layer, RMSNorm
from blt.nn.weights import QuantizedLinear
from blt.shapes import Float, Int, Tensor


def serves(weights: Iterable[Tensor]) -> bool:
    """Whether there are kernels, and for such weights: on a CPU, of a type that they read."""
    return all(part.device.type == "cpu" and part.dtype in KINDS for part in weights) and load("kernels") is not None


def _floats(*shape: int) -> Tensor:
    """Return uninitialised memory of the only type and device that the kernels write."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def _check_floats(kernel: str, *tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.dtype is not torch.float32 or not tensor.is_cpu or not tensor.is_contiguous():
            check_tensor(tensor, torch.float32, kernel)


class _Bound:
    """Keeps alive the tensors that structures point to."""

    def __init__(self) -> None:
        library = abi.declare("kernels", load("kernels"))
        assert library is not None
        self._library = library
        self._kept: list[Tensor] = []
        self._scratch = _floats(0)

    def _pointer(self, tensor: Tensor, *, dtype: torch.dtype | None = None) -> int:
        tensor = tensor.detach().to(dtype or tensor.dtype).contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _norm(self, norm: RMSNorm | None) -> abi.Norm:
        if norm is None:
            return abi.Norm(None, 0.0)
        return abi.Norm(self._pointer(norm.weight, dtype=torch.float32), float(norm.eps or 0.0))

    def _matrix(self, source: nn.Module | Tensor) -> abi.Matrix:
        weight = source if isinstance(source, Tensor) else source.weight
        scale = source.scale if isinstance(source, QuantizedLinear) else None
        assert isinstance(weight, Tensor)
        height, width = weight.shape
        scales = None if scale is None else self._pointer(scale, dtype=torch.float32)
        return abi.Matrix(self._pointer(weight), scales, height, width, KINDS[weight.dtype])

    def _room(self, size: int) -> int:
        """Return the address of memory to work in, for so many float32."""
        if self._scratch.numel() < size:
            self._scratch = _floats(2 * size)
        return self._scratch.data_ptr()


class NativeLayer(_Bound):
    """A layer that runs some positions of some rows, with what its rows have seen in a cache."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        attention, feed_forward = layer.attention, layer.feed_forward
        self.dim, self.hidden = attention.query.in_features, feed_forward.gate.out_features
        self._num_heads = attention.num_heads
        self._layer = abi.Layer(
            self._norm(layer.attention_norm),
            *(self._matrix(part) for part in (attention.query, attention.key, attention.value, attention.output)),
            self._norm(layer.feed_forward_norm),
            *(self._matrix(part) for part in (feed_forward.gate, feed_forward.up, feed_forward.down)),
            attention.num_heads,
        )

    def __call__(
        self,
        states: Float[Tensor, "N D"],
        places: "NativeStepInputs",
        *,
        keys: Float[Tensor, "B H S E"],
        values: Float[Tensor, "B H S E"],
        window: int,
    ) -> Float[Tensor, "N D"]:
        """Return the states after the layer; their keys and values enter the cache.

        Args:
            states: float32.
            places: of the states; position p of a row lies in slot p mod S.
            keys: of this layer, float32, contiguous.
            values: likewise.
            window: how many positions one sees, itself included; at most S.
        """
        states = states.clone(memory_format=torch.contiguous_format)  # the kernel works in place
        _check_floats("step_layer", states, keys, values)
        (num, dim), (num_rows, heads, num_slots, width) = states.shape, keys.shape
        fits = num == places.num and dim == self.dim == heads * width and heads == self._num_heads
        fits = fits and width == 2 * places.half
        if not fits or keys.shape != values.shape:
            shapes = f"states {tuple(states.shape)}, keys {tuple(keys.shape)}, values {tuple(values.shape)}"
            raise ValueError(f"step_layer: {shapes} at {places.num} places; do not fit together")
        cache = abi.Cache(keys.data_ptr(), values.data_ptr(), num_rows, heads, num_slots, window)
        scratch = self._room(num * (4 * dim + 2 * self.hidden))
        status = self._library.step_layer(self._layer, cache, places.structure, states.data_ptr(), scratch)
        check_status(status, "step_layer")
        return states


class NativeStepInputs:
    """What a step computes at once, checked once for all layers.

    Args:
        rows: of the cache, int64.
        positions: of each in its row's segment, int64.
        table: angles of the positions, float32, contiguous.
    """

    def __init__(self, rows: Int[Tensor, " N"], positions: Int[Tensor, " N"], table: RotaryTable) -> None:
        for name, part in (("rows", rows), ("positions", positions)):
            check_tensor(part, torch.int64, f"step_layer: {name}")
        _check_floats("step_layer", table.cos, table.sin)
        self.num, self.half, self._kept = len(rows), table.cos.shape[-1], (rows, positions, table)
        of_angles = self.num * self.half
        if len(positions) != self.num or not table.cos.numel() == table.sin.numel() == of_angles:
            lengths = (self.num, len(positions), len(table.cos), len(table.sin))
            raise ValueError(f"step_layer: rows, positions, cosines and sines of {lengths} places; as many of each")
        pointers = (part.data_ptr() for part in (rows, positions, table.cos, table.sin))
        self.structure = abi.StepInputs(*pointers, self.num)


class NativeLinear(_Bound):
    """A matrix, after a norm if there is one."""

    def __init__(self, weight: nn.Module | Tensor, *, norm: RMSNorm | None = None) -> None:
        super().__init__()
        self._before, self._weight = self._norm(norm), self._matrix(weight)

    def __call__(self, states: Float[Tensor, "N D"]) -> Float[Tensor, "N E"]:
        """Multiply each state; float32."""
        states = states.contiguous()
        _check_floats("step_linear", states)
        num, height, width = len(states), self._weight.height, self._weight.width
        if states.shape != (num, width):
            raise ValueError(f"step_linear: states {tuple(states.shape)}; the matrix is {height} × {width}")
        out = _floats(num, height)
        status = self._library.step_linear(
            self._before, self._weight, states.data_ptr(), num, out.data_ptr(), self._room(num * width)
        )
        check_status(status, "step_linear")
        return out


class NativeCrossAttention(_Bound):
    """Lets each state read a few keys and values of its own source, and adds what it gathers.

    Args:
        norm: before the query.
        query: matrix of the queries.
        output: matrix of what is gathered.
        num_heads: attention heads.
        kept: how often the state itself is added, a whole number.
    """

    def __init__(self, *, norm: RMSNorm, query: nn.Module, output: nn.Module, num_heads: int, kept: int) -> None:
        super().__init__()
        self._before, self._query, self._output = self._norm(norm), self._matrix(query), self._matrix(output)
        self.num_heads, self.kept = num_heads, kept

    def __call__(
        self,
        states: Float[Tensor, "N D"],
        sources: Int[Tensor, " N"],
        *,
        keys: Float[Tensor, "Z K H E"],
        values: Float[Tensor, "Z K H E"],
    ) -> Float[Tensor, "N D"]:
        """Return the states with what they read; all float32, keys and values contiguous."""
        states = states.clone(memory_format=torch.contiguous_format)  # the kernel works in place
        _check_floats("step_cross_attention", states, keys, values)
        check_tensor(sources, torch.int64, "step_cross_attention: sources")
        (num, dim), (num_sources, few, heads, width) = states.shape, keys.shape
        fits = heads == self.num_heads and heads * width == dim == self._query.width and len(sources) == num
        if not fits or keys.shape != values.shape:
            shapes = f"states {tuple(states.shape)}, keys {tuple(keys.shape)}, values {tuple(values.shape)}"
            raise ValueError(f"step_cross_attention: {shapes}, {len(sources)} sources; do not fit together")
        status = self._library.step_cross_attention(
            self._before,
            self._query,
            self._output,
            self.num_heads,
            self.kept,
            keys.data_ptr(),
            values.data_ptr(),
            sources.data_ptr(),
            num_sources,
            few,
            num,
            states.data_ptr(),
            self._room(2 * num * dim),
        )
        check_status(status, "step_cross_attention")
        return states
