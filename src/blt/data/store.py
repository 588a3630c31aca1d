"""Files at an address such as `s3://bucket/corpus`, read and written through fsspec.

Who may read them, and where the store is, is said as the package of that store wants it: s3fs takes the credentials of
AWS's own tools, gcsfs those of gcloud, and fsspec's configuration files set the rest.
"""

import io
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from blt.errors import DataError, MissingExtraError

T = TypeVar("T")

PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds before a request that failed is made again, for the first time, the second …; then it has failed."""
_CHUNK = 1 << 23
"""Bytes of one request where a file is read from end to end."""
_LOCAL = re.compile(r"(file|local)://(?P<path>.*)", re.DOTALL)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")
_LASTING = (PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError, ImportError, ValueError)
"""Errors of a store that another try would meet again."""


class MissingFileError(DataError):
    """There is no such file in the store."""


def is_address(name: str | Path) -> bool:
    """Whether a name is an address, and no path on this machine; of `file://` it is the path that counts."""
    return _ADDRESS.match(str(name)) is not None and _LOCAL.fullmatch(str(name)) is None


def local_path(name: str | Path) -> Path:
    """Return the path that a name stands for which is no address: itself, or what follows `file://`."""
    local = _LOCAL.fullmatch(str(name))
    return Path(local["path"] if local else name)


class Store:
    """The files below an address, each by its name there; any thread may ask.

    A request that fails is made again some times after growing pauses, unless it would fail for ever.
    """

    def __init__(self, address: str) -> None:
        """Find the store; nothing is read.

        Args:
            address: of a folder.

        Raises:
            MissingExtraError: fsspec is not installed.
            DataError: the package of that store is not installed, or there is no such kind of store.
        """
        self.address = address.rstrip("/")
        try:
            import fsspec.core
        except ImportError:
            raise MissingExtraError("fsspec", extra="store", purpose=f"reading {address}") from None
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address)
        except ImportError as error:
            package = re.search(r"[Ii]nstall ['`\"]?([\w-]+)", str(error))
            command = f": pip install {package[1]}" if package else f" ({_told(error)})"
            raise DataError(f"{address}: its store needs a package that is not installed{command}") from None
        except Exception as error:  # noqa: BLE001 (each store has errors of its own)
            raise DataError(f"{address}: is no address of a store ({_told(error)}); check it") from None

    def read(self, name: str) -> bytes:
        """Return a file.

        Raises:
            MissingFileError: there is none.
            DataError: it cannot be read.
        """
        return self._patiently(name, lambda path: bytes(self._files.cat_file(path)))

    def read_part(self, name: str, start: int, stop: int) -> bytes:
        """Return the bytes of a file from `start` to before `stop`.

        Raises:
            MissingFileError: there is no such file.
            DataError: it cannot be read, or ends before.
        """
        content = self._patiently(name, lambda path: bytes(self._files.cat_file(path, start=start, end=stop)))
        if len(content) != stop - start:
            raise DataError(
                f"{self.address}/{name}: {len(content):,} bytes came from {start:,} on, of {stop - start:,}; "
                "upload it again"
            )
        return content

    def size(self, name: str) -> int:
        """Return the bytes of a file.

        Raises:
            MissingFileError: there is none.
            DataError: it cannot be asked for.
        """
        return int(self._patiently(name, lambda path: self._files.info(path))["size"])

    def parts(self, name: str) -> Iterator[bytes]:
        """Yield a file from its start to its end, in parts.

        Raises:
            MissingFileError: there is none.
            DataError: it cannot be read.
        """
        size = self.size(name)
        for start in range(0, size, _CHUNK):
            yield self.read_part(name, start, min(start + _CHUNK, size))

    def names(self) -> list[str]:
        """Return the names of all files, sorted; none where there is no such folder.

        Raises:
            DataError: they cannot be asked for.
        """
        try:
            found = self._patiently("", lambda path: list(self._files.find(path)))
        except MissingFileError:
            return []
        return sorted(path.removeprefix(self._root.rstrip("/")).lstrip("/") for path in found)

    def upload(self, source: Path, name: str) -> None:
        """Copy a file of this machine there.

        Raises:
            DataError: it cannot be written.
        """

        def upload(path: str) -> None:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)  # in stores that have folders
            self._files.put_file(str(source), path)

        self._patiently(name, upload, done="written")

    def delete(self, name: str) -> None:
        """Delete a file; nothing happens if there is none.

        Raises:
            DataError: it cannot be deleted.
        """
        with suppress(MissingFileError):
            self._patiently(name, lambda path: self._files.rm_file(path), done="deleted")

    def _patiently(self, name: str, request: Callable[[str], T], *, done: str = "read") -> T:
        """Make a request, some times if need be.

        Args:
            name: of the file.
            request: gets the file's path in the store.
            done: what is to be done with it, for messages.

        Raises:
            MissingFileError: there is no such file.
            DataError: it cannot be done.
        """
        where = f"{self.address}/{name}".rstrip("/")
        path = f"{self._root.rstrip('/')}/{name}".rstrip("/")
        for pause in (*PAUSES, None):
            try:
                return request(path)
            except FileNotFoundError:
                raise MissingFileError(f"{where}: does not exist; check the address") from None
            except PermissionError as error:
                way_out = "check the credentials and the rights of the store"
                raise DataError(f"{where}: may not be {done} ({_told(error)}); {way_out}") from None
            except _LASTING as error:
                raise DataError(f"{where}: cannot be {done} ({_told(error)}); check the address") from None
            except Exception as error:  # noqa: BLE001 (each store has errors of its own)
                if pause is None:
                    tries = f"{len(PAUSES) + 1} tries failed"
                    way_out = "check the connection, and give the same command again"
                    raise DataError(f"{where}: cannot be {done} ({tries}, {_told(error)}); {way_out}") from None
                # Many ranks that failed together do not come back together.
                time.sleep(pause * random.uniform(0.5, 1.0))
        raise AssertionError("the last try has returned or raised")


class StoreStream(io.RawIOBase):
    """One file of a store, to be read once from its start to its end."""

    def __init__(self, address: str) -> None:
        """Name a file.

        Args:
            address: of the file.

        Raises:
            DataError: there is no such file, or it cannot be read.
        """
        folder, _, name = address.rpartition("/")
        self._parts = Store(folder).parts(name)
        self._part = memoryview(b"")

    def readable(self) -> bool:
        """Whether it can be read: it can."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the part at hand goes."""
        if not self._part:
            self._part = memoryview(next(self._parts, b""))
        count = min(len(buffer), len(self._part))
        buffer[:count] = self._part[:count]
        self._part = self._part[count:]
        return count


def _told(error: Exception) -> str:
    """Return an error in a few words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
