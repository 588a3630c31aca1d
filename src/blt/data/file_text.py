"""A file whose parts are read where they are asked for; between two parts it is neither open nor mapped."""

import os

import numpy as np
from numpy.typing import NDArray

from blt.errors import DataError

_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class FileText:
    """The bytes of a file that must have a certain size.

    To map a file, meet its pages and end the mapping costs several times as much as to open it, read one part and
    close it. So mapping pays for files that are met again, and this for a corpus of many, of which hardly one is. Parts
    that are far from each other are read without what lies behind them.
    """

    def __init__(self, path: str, *, size: int) -> None:
        """Name a file; nothing of it is looked at.

        Args:
            path: of the file.
            size: in bytes, that it must have whenever a part is read.
        """
        self._path, self._size = path, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> NDArray[np.uint8]:
        """Return a part, read anew; it cannot be written.

        Raises:
            DataError: the file is missing, has another size, or cannot be read.
        """
        start, stop, _ = part.indices(self._size)
        try:
            descriptor = os.open(self._path, _FLAGS)
            try:
                size = os.fstat(descriptor).st_size
                os.lseek(descriptor, start, os.SEEK_SET)
                content = os.read(descriptor, max(stop - start, 0))
                while len(content) < min(stop, size) - start:  # the system gives at most 2 GiB at once
                    if not (more := os.read(descriptor, min(stop, size) - start - len(content))):
                        break
                    content += more
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            raise DataError(
                f"{self._path}: missing, though index.json lists it; prepare again with --overwrite"
            ) from None
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error.strerror}); check the disk") from None
        if size != self._size:
            says = f"index.json says {self._size}"
            raise DataError(f"{self._path}: has {size} bytes, {says}; prepare again with --overwrite")
        if len(content) < stop - start:
            raise DataError(f"{self._path}: was cut short while it was read; prepare again with --overwrite")
        return np.frombuffer(content, np.uint8)
