"""Memory that is freed and taken again in every step."""

import ctypes
import platform

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
"""Names of two settings of glibc's `mallopt`."""


def keep_freed_memory() -> None:
    """Let the C library keep large blocks that are freed, instead of asking the system for new ones in every step.

    Each new page costs a fault. Only glibc has these settings; elsewhere nothing changes.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
