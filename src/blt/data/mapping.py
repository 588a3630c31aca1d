"""Files mapped into memory without being kept open."""

import ctypes
import os
import sys
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_PROT_READ, _MAP_SHARED = 1, 1
_MAP_FAILED = ctypes.c_void_p(-1).value


def map_file(path: Path) -> tuple[NDArray[np.uint8], os.stat_result]:
    """Map a file, to be read and not written.

    Returns:
        Its bytes, and what the system says of the file that was mapped.

    Raises:
        OSError: there is no such file, or it cannot be mapped.
    """
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        if not stat.st_size:
            return np.zeros(0, np.uint8), stat
        if sys.platform == "win32":
            return np.memmap(path, dtype=np.uint8, mode="r"), stat
        return _map(file.fileno(), stat.st_size, path), stat


def _map(descriptor: int, size: int, path: Path) -> NDArray[np.uint8]:
    # Python's mmap, and so numpy's memmap, keeps a descriptor of its own until the mapping ends, and a process may have
    # 1,024 of them. The system needs none once a file is mapped, so its own function is called: a mapping ends with the
    # last array that looks into it, and stays whole if the file is deleted or replaced by another of its name.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_longlong,
    ]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    address = libc.mmap(None, size, _PROT_READ, _MAP_SHARED, descriptor, 0)
    if address is None or address == _MAP_FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    buffer = (ctypes.c_uint8 * size).from_address(address)
    weakref.finalize(buffer, libc.munmap, address, size).atexit = False
    mapped = np.frombuffer(memoryview(buffer), np.uint8)
    mapped.flags.writeable = False
    return mapped
