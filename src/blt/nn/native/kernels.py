"""The functions of `kernels.cpp`, bound to the weights of modules."""

import ctypes
from collections.abc import Iterable

import torch
from torch import nn

from blt.nn.native.build import load
from blt.nn.rotary import RotaryTable
from blt.nn.transformer import Layer, RMSNorm
from blt.nn.weights import QuantizedLinear
from blt.shapes import Float, Int, Tensor

_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
_Pointer, _Size = ctypes.c_void_p, ctypes.c_int64


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("weight", _Pointer),
        ("scale", _Pointer),
        ("height", _Size),
        ("width", _Size),
        ("kind", ctypes.c_int32),
    )


class _Norm(ctypes.Structure):
    _fields_ = (("weight", _Pointer), ("epsilon", ctypes.c_float))


class _Layer(ctypes.Structure):
    _fields_ = (
        ("attention_norm", _Norm),
        *((name, _Matrix) for name in ("query", "key", "value", "output")),
        ("feed_forward_norm", _Norm),
        *((name, _Matrix) for name in ("gate", "up", "down")),
        ("num_heads", _Size),
    )


class _Cache(ctypes.Structure):
    _fields_ = (
        ("keys", _Pointer),
        ("values", _Pointer),
        *((name, _Size) for name in ("num_heads", "num_slots", "window")),
    )


class _StepInputs(ctypes.Structure):
    _fields_ = (*((name, _Pointer) for name in ("rows", "positions", "cos", "sin")), ("num", _Size))


def serves(weights: Iterable[Tensor]) -> bool:
    """Whether there are kernels, and for such weights: on a CPU, of a type that they read."""
    return all(part.device.type == "cpu" and part.dtype in _KINDS for part in weights) and load("kernels") is not None


def _floats(*shape: int) -> Tensor:
    """Return uninitialised memory of the only type and device that the kernels write."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


class _Bound:
    """Keeps alive the tensors that structures point to."""

    def __init__(self) -> None:
        library = load("kernels")
        assert library is not None
        self._library = library
        self._kept: list[Tensor] = []
        self._scratch = _floats(0)

    def _pointer(self, tensor: Tensor, *, dtype: torch.dtype | None = None) -> int:
        tensor = tensor.detach().to(dtype or tensor.dtype).contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _norm(self, norm: RMSNorm | None) -> _Norm:
        if norm is None:
            return _Norm(None, 0.0)
        return _Norm(self._pointer(norm.weight, dtype=torch.float32), float(norm.eps or 0.0))

    def _matrix(self, source: nn.Module | Tensor) -> _Matrix:
        weight = source if isinstance(source, Tensor) else source.weight
        scale = source.scale if isinstance(source, QuantizedLinear) else None
        assert isinstance(weight, Tensor)
        height, width = weight.shape
        scales = None if scale is None else self._pointer(scale, dtype=torch.float32)
        return _Matrix(self._pointer(weight), scales, height, width, _KINDS[weight.dtype])

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
        self._layer = _Layer(
            self._norm(layer.attention_norm),
            *(self._matrix(part) for part in (attention.query, attention.key, attention.value, attention.output)),
            self._norm(layer.feed_forward_norm),
            *(self._matrix(part) for part in (feed_forward.gate, feed_forward.up, feed_forward.down)),
            attention.num_heads,
        )

    def __call__(
        self,
        states: Float[Tensor, "N D"],
        rows: Int[Tensor, " N"],
        positions: Int[Tensor, " N"],
        table: RotaryTable,
        *,
        keys: Float[Tensor, "B H S E"],
        values: Float[Tensor, "B H S E"],
        window: int,
    ) -> Float[Tensor, "N D"]:
        """Return the states after the layer; their keys and values enter the cache.

        Args:
            states: float32.
            rows: of the cache.
            positions: of each in its row's segment; position p lies in slot p mod S.
            table: angles of the positions, float32, contiguous.
            keys: of this layer, float32, contiguous.
            values: likewise.
            window: how many positions one sees, itself included.
        """
        num, states = len(states), states.clone(memory_format=torch.contiguous_format)  # the kernel works in place
        cache = _Cache(keys.data_ptr(), values.data_ptr(), keys.shape[1], keys.shape[2], window)
        places = _StepInputs(rows.data_ptr(), positions.data_ptr(), table.cos.data_ptr(), table.sin.data_ptr(), num)
        scratch = self._room(num * (4 * self.dim + 2 * self.hidden))
        self._library.step_layer(
            ctypes.byref(self._layer),
            ctypes.byref(cache),
            ctypes.byref(places),
            _Pointer(states.data_ptr()),
            _Pointer(scratch),
        )
        return states


class NativeLinear(_Bound):
    """A matrix, after a norm if there is one."""

    def __init__(self, weight: nn.Module | Tensor, *, norm: RMSNorm | None = None) -> None:
        super().__init__()
        self._before, self._weight = self._norm(norm), self._matrix(weight)

    def __call__(self, states: Float[Tensor, "N D"]) -> Float[Tensor, "N E"]:
        """Multiply each state; float32."""
        states = states.contiguous()
        num, out = len(states), _floats(len(states), self._weight.height)
        self._library.step_linear(
            ctypes.byref(self._before),
            ctypes.byref(self._weight),
            _Pointer(states.data_ptr()),
            _Size(num),
            _Pointer(out.data_ptr()),
            _Pointer(self._room(num * self._weight.width)),
        )
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
        num, states = len(states), states.clone(memory_format=torch.contiguous_format)  # the kernel works in place
        self._library.step_cross_attention(
            ctypes.byref(self._before),
            ctypes.byref(self._query),
            ctypes.byref(self._output),
            _Size(self.num_heads),
            ctypes.c_float(self.kept),
            _Pointer(keys.data_ptr()),
            _Pointer(values.data_ptr()),
            _Pointer(sources.data_ptr()),
            _Size(keys.shape[1]),
            _Size(num),
            _Pointer(states.data_ptr()),
            _Pointer(self._room(2 * num * self._query.width)),
        )
        return states
