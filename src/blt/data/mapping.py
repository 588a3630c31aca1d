"""Files mapped into memory without being kept open."""

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PROT_READ, _MAP_SHARED, _MADV_RANDOM = 1, 1, 1
_MAP_FAILED = ctypes.c_void_p(-1).value


def map_file(path: str | Path, *, is_random: bool = False) -> tuple[NDArray[np.uint8], os.stat_result]:
    """Map a file, to be read and not written.

    Args:
        path: of the file.
        is_random: whether small parts far from each other are read. The system then reads the pages that are asked for
            and none ahead, which can take a hundred times as long as the part itself.

    Returns:
        Its bytes, and what the system says of the file that was mapped.

    Raises:
        OSError: there is no such file, or it cannot be mapped.
    """
    # A batch of rows out of thousands of shards maps dozens of files, so the system's own calls are made.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        stat = os.fstat(descriptor)
        if not stat.st_size:
            return np.zeros(0, np.uint8), stat
        if sys.platform == "win32":
            return np.memmap(path, dtype=np.uint8, mode="r"), stat
        return np.asarray(_Mapping(descriptor, stat.st_size, str(path), is_random=is_random)), stat
    finally:
        os.close(descriptor)


class _Mapping:
    """A part of memory that shows a file; it ends with the last array that looks into it."""

    # Python's mmap, and so numpy's memmap, keeps a descriptor of its own until the mapping ends, and a process may have
    # 1,024 of them. The system needs none once a file is mapped, so its own function is called: a mapping stays whole
    # if the file is deleted or replaced by another of its name.

    def __init__(self, descriptor: int, size: int, path: str, *, is_random: bool) -> None:
        mmap, self._unmap, advise = _functions()
        self._place: tuple[int, int] | None = None
        address = mmap(None, size, _PROT_READ, _MAP_SHARED, descriptor, 0)
        if address is None or address == _MAP_FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        self._place = address, size
        if is_random:
            advise(address, size, _MADV_RANDOM)  # advice: where the system does not take it, nothing is lost

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """What NumPy makes an array of: address, whether it is read-only, and shape."""
        assert self._place is not None, "it was mapped"
        address, size = self._place
        return {"data": (address, True), "shape": (size,), "typestr": "|u1", "version": 3}

    def __del__(self) -> None:
        if self._place is not None:
            self._unmap(*self._place)


@functools.cache
def _functions() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return the system's `mmap`, `munmap` and `madvise`."""
    libc = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.restype = pointer
    libc.mmap.argtypes = [pointer, size, number, number, number, ctypes.c_longlong]
    libc.munmap.argtypes = [pointer, size]
    libc.madvise.argtypes = [pointer, size, number]
    return libc.mmap, libc.munmap, libc.madvise
