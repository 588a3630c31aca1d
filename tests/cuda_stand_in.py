"""A stand-in for a GPU: tensors that say that they are on `cuda`, and are computed on the CPU.

    with CudaStandIn() as gpu:
        model.to("cuda")
        ...
    gpu.waits, gpu.to_device, gpu.to_host

It refuses what CUDA refuses, above all tensors of two devices in one operation, and counts what the host waits for:
that is what `torch.cuda.set_sync_debug_mode` reports, and `torch.cuda.synchronize`. What it cannot show: speed, memory,
the rounding of CUDA's own kernels, and a buffer that is read before an asynchronous copy has filled it; so copies to
the host that do not block are refused.
"""

import functools
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode

import blt

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
_THERE = torch.device("meta", 0)
"""What C++ is told in place of CUDA; who wants the device meta itself names no index."""
_SOURCE = str(Path(blt.__file__).parent)
_ATEN = torch.ops.aten

# Operations whose result's size, or whose result itself, the host has to know: CUDA's kernels of these synchronise.
_WAITING = {
    _ATEN._local_scalar_dense,  # item, bool, int, float
    _ATEN.nonzero,
    _ATEN.masked_select,
    _ATEN.equal,
    _ATEN.bincount,
    _ATEN._unique,
    _ATEN._unique2,
    _ATEN.unique_dim,
    _ATEN.unique_consecutive,
    _ATEN.repeat_interleave,
    _ATEN._coalesce,  # a sparse tensor: how many different rows it has
}
# Indices may lie on the host, whence they are copied (`TensorAdvancedIndexing.cpp`).
_INDEXING = {_ATEN.index, _ATEN.index_put, _ATEN.index_put_, _ATEN._index_put_impl_, _ATEN._unsafe_index}
# Where a tensor on the host may take part if it is one number: what `TensorIterator` computes, which reads it as a
# scalar (tag `pointwise`), and a few others.
_TAKING_NUMBERS = {_ATEN.fill, _ATEN.fill_, _ATEN.masked_fill, _ATEN.masked_fill_, _ATEN._foreach_mul_, _ATEN.where}
_MAKERS = (
    *("arange", "empty", "empty_like", "eye", "full", "full_like", "linspace", "ones", "ones_like", "rand", "randint"),
    *("randn", "randperm", "zeros", "zeros_like"),
)
_MAKING_METHODS = ("new_empty", "new_full", "new_ones", "new_zeros")
_MAKERS_FROM_DATA = ("as_tensor", "asarray", "tensor")


class StandInTensor(torch.Tensor):
    """A tensor on the stand-in. To C++ it is on `meta`, so that nothing reads it past the dispatcher."""

    held: torch.Tensor
    """The numbers, on the CPU."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "StandInTensor":
        options: dict[str, Any] = {"dtype": held.dtype, "layout": held.layout, "device": _THERE}
        if held.layout == torch.strided:
            options |= {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = torch.Tensor._make_wrapper_subclass(cls, held.size(), **options)
        made.held = held
        return made

    device = property(lambda _: CUDA)
    is_cuda = property(lambda _: True)
    is_cpu = is_meta = property(lambda _: False)

    __torch_function__ = torch._C._disabled_torch_function_impl  # as of a plain tensor, and as fast

    def get_device(self) -> int:
        return 0

    def numpy(self, **_: Any) -> None:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it to host memory")

    __array__ = numpy  # type: ignore[assignment]

    def data_ptr(self) -> int:
        raise AssertionError("a pointer to the GPU's memory was asked for: a kernel of the CPU would read it")

    def __repr__(self, **_: Any) -> str:
        return f"StandInTensor({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} of a tensor on the stand-in, outside of it")


class CudaStandIn:
    """The device, while it is entered; counts what happens there.

    `waits`, `to_device` and `to_host` count how often the host waited for the device and how often something was
    copied, by the place in `blt` that asked for it.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Count from zero."""
        self.waits: Counter[str] = Counter()
        self.to_device: Counter[str] = Counter()
        self.to_host: Counter[str] = Counter()

    def counts(self) -> dict[str, int]:
        """Return how often each happened."""
        return {name: getattr(self, name).total() for name in ("waits", "to_device", "to_host")}

    def __enter__(self) -> "CudaStandIn":
        self._stack = stack = ExitStack()
        _device_constructors()  # PyTorch notes for ever what `with torch.device(...)` acts on: not what takes its place
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # a parameter changes its class on the way
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        for owner, name, found in self._replacements():
            stack.enter_context(mock.patch.object(owner, name, found))
        stack.enter_context(_Dispatched(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)

    def _replacements(self) -> Iterator[tuple[Any, str, Any]]:
        """Yield what is called with the name of a device, or asks for one, as a PyTorch without CUDA takes it."""
        yield torch.cuda, "is_available", lambda: True
        yield torch.cuda, "device_count", lambda: 1
        yield torch.cuda, "is_bf16_supported", lambda **_: False
        yield torch.cuda, "get_device_name", lambda *_: "a stand-in for a GPU"
        yield torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(total_memory=2**34)
        yield torch.cuda, "synchronize", lambda *_: self.wait("torch.cuda.synchronize")
        for name in _MAKERS:
            yield torch, name, _making(getattr(torch, name))
        for name in _MAKING_METHODS:
            yield torch.Tensor, name, _making(getattr(torch.Tensor, name))
        for name in _MAKERS_FROM_DATA:
            yield torch, name, _making_from_data(getattr(torch, name))
        to, set_item, to_list = torch.Tensor.to, torch.Tensor.__setitem__, torch.Tensor.tolist

        def moved(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            kwargs = {name: _THERE if name == "device" and _is_cuda(part) else part for name, part in kwargs.items()}
            return to(tensor, *(_THERE if _is_cuda(part) else part for part in args), **kwargs)

        def assigned(tensor: torch.Tensor, index: Any, value: Any) -> None:
            if isinstance(value, bool | int | float):  # for CUDA too, a number becomes a tensor on the host
                value = torch.tensor(value, dtype=tensor.dtype)
            set_item(tensor, index, value)

        yield torch.Tensor, "to", moved
        yield torch.Tensor, "cuda", lambda tensor, device="cuda", **options: tensor.to(device, **options)
        yield torch.Tensor, "pin_memory", lambda tensor: tensor
        yield torch.Tensor, "tolist", lambda tensor: to_list(tensor.cpu())
        yield torch.Tensor, "__setitem__", assigned

    def wait(self, reason: str) -> None:
        """Count that the host waited."""
        self.waits[f"{_place()}: {reason}"] += 1

    def copied(self, counter: Counter[str], *, blocks: bool) -> None:
        """Count a copy. One that blocks synchronises, in either direction (`Copy.cu`, `memcpy_and_sync`)."""
        counter[_place()] += 1
        if blocks:
            self.wait("a copy that blocks")


class _Dispatched(TorchDispatchMode):
    """Computes every operation on the CPU, where it may be computed at all."""

    def __init__(self, gpu: CudaStandIn) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [part for part in _parts((*args, *kwargs.values())) if isinstance(part, torch.Tensor)]
        there = [part for part in tensors if isinstance(part, StandInTensor)]
        target = next((part for part in (*args, *kwargs.values()) if isinstance(part, torch.device)), None)
        if not there and not _is_there(target):
            return func(*args, **kwargs)
        # What PyTorch composes of other operations comes here as a whole in inference mode, where autograd does not
        # decompose it.
        if _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        packet = func.overloadpacket
        if packet is _ATEN._to_copy:
            return self._copy(func, args[0], kwargs)
        if packet is _ATEN.copy_:
            return self._copy_into(func, args, kwargs)
        assert func.namespace != "blt", f"{func}: a kernel for the CPU was called with tensors of the GPU"
        if 0 < len(there) < len(tensors):
            self._refuse_mixture(func, args, tensors)
        if packet in _WAITING or (packet in _INDEXING and _looks_for_true(packet, args)):
            self._gpu.wait(str(packet).removeprefix("aten."))
        return self._compute(func, args, kwargs, on_device=target != CPU)

    def _compute(self, func: Any, args: Any, kwargs: dict[str, Any], *, on_device: bool) -> Any:
        outer = {id(part.held): part for part in _parts((*args, *kwargs.values())) if isinstance(part, StandInTensor)}
        if kwargs.get("device") is not None:
            kwargs = kwargs | {"device": CPU}
        result = func(*map(_held, args), **{name: _held(part) for name, part in kwargs.items()})
        for part in outer.values():
            assert part.shape == part.held.shape, f"{func}: the shape of a tensor was changed in place"
        if not on_device:
            return result
        # In inference mode a view of a tensor from outside of it is one from outside too.
        is_inference = torch.is_inference_mode_enabled()
        if is_inference and any(found.alias_info and not found.alias_info.is_write for found in func._schema.returns):
            is_inference = all(part.is_inference() for part in outer.values())
        with nullcontext() if is_inference == torch.is_inference_mode_enabled() else torch.inference_mode(False):
            return _there(result, outer)

    def _copy(self, func: Any, source: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
        is_there = isinstance(source, StandInTensor)
        goes_there = is_there if kwargs.get("device") is None else _is_there(kwargs["device"])
        if is_there != goes_there:
            self._cross(goes_there, non_blocking=kwargs.get("non_blocking", False))
        copied = func(_held(source), **kwargs | {"device": CPU})
        return StandInTensor(copied) if goes_there else copied

    def _copy_into(self, func: Any, args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        goal, source = args[0], args[1]
        if isinstance(goal, StandInTensor) != isinstance(source, StandInTensor):
            non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
            self._cross(isinstance(goal, StandInTensor), non_blocking=non_blocking)
        func(_held(goal), _held(source))
        return goal

    def _cross(self, goes_there: bool, *, non_blocking: bool) -> None:
        if not goes_there and non_blocking:
            raise NotImplementedError("a copy to the host that does not block: when is it there?")
        self._gpu.copied(self._gpu.to_device if goes_there else self._gpu.to_host, blocks=not non_blocking)

    def _refuse_mixture(self, func: Any, args: Any, tensors: list[torch.Tensor]) -> None:
        """Refuse tensors on the host, but for indices and, in some operations, numbers.

        Raises:
            RuntimeError: as CUDA raises it.
        """
        packet, indices = func.overloadpacket, []
        if packet in _INDEXING:
            indices = [part for part in args[1] if part is not None]
            if not isinstance(args[0], StandInTensor):
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        takes_numbers = torch.Tag.pointwise in func.tags or packet in _TAKING_NUMBERS
        for part in tensors:
            if isinstance(part, StandInTensor):
                continue
            if any(part is index for index in indices):
                self._gpu.copied(self._gpu.to_device, blocks=True)
            elif packet in _INDEXING and part.dim() == 0:
                if not _fills_mask(packet, args):
                    self._gpu.copied(self._gpu.to_device, blocks=True)
            elif part.dim() > 0 or not takes_numbers:
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
                    f"{part.device}! ({func}, {tuple(part.shape)}, from {_place()})"
                )


@functools.cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _fills_mask(packet: Any, args: Any) -> bool:
    """Whether a masked assignment of one number on the host, which needs no positions (`canDispatchToMaskedFill`)."""
    if packet in (_ATEN.index, _ATEN._unsafe_index):
        return False
    indices = [part for part in args[1] if part is not None]
    is_number = args[2].numel() == 1 and not isinstance(args[2], StandInTensor)
    return is_number and len(indices) == 1 and indices[0].dtype == torch.bool


def _looks_for_true(packet: Any, args: Any) -> bool:
    """Whether a mask is among the indices, whose true positions have to be found."""
    has_mask = any(part is not None and part.dtype in (torch.bool, torch.uint8) for part in args[1])
    return has_mask and not _fills_mask(packet, args)


def _making(make: Any) -> Any:
    def made(*args: Any, **kwargs: Any) -> torch.Tensor:
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = _THERE
        return make(*args, **kwargs)

    return made


def _making_from_data(make: Any) -> Any:
    def made(*args: Any, **kwargs: Any) -> torch.Tensor:
        if not _is_cuda(kwargs.get("device")):
            return make(*args, **kwargs)
        return make(*args, **kwargs | {"device": CPU}).to(_THERE)

    return made


def _parts(values: Any) -> Iterator[Any]:
    """Yield values, and those in lists among them."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _parts(value)
        else:
            yield value


def _held(part: Any) -> Any:
    """Return what is held on the CPU, in lists too."""
    if isinstance(part, StandInTensor):
        return part.held
    return [_held(one) for one in part] if isinstance(part, list | tuple) else part


def _there(result: Any, outer: dict[int, StandInTensor]) -> Any:
    """Return a result as one on the stand-in: an argument where it is one, which was changed in place."""
    if isinstance(result, torch.Tensor):
        return outer[id(result)] if id(result) in outer else StandInTensor(result)
    return type(result)(_there(part, outer) for part in result) if isinstance(result, list | tuple) else result


def _is_there(device: torch.device | None) -> bool:
    return device is not None and device.type == "meta" and device.index == 0


def _is_cuda(part: Any) -> bool:
    return isinstance(part, str | torch.device) and str(part).partition(":")[0] == "cuda"


def _place() -> str:
    """Return the innermost place in `blt` that is being run."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_SOURCE):
            return f"{path.removeprefix(_SOURCE).lstrip('/')}:{frame.f_code.co_name}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"
