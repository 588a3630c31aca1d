"""Stores to read from in tests: fsspec's file system in memory, with failures and round trips that a test asks for."""

import threading
import time
from typing import ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class TroubledFileSystem(MemoryFileSystem):
    """The file system in memory, which counts requests, and fails or waits as it is told."""

    protocol = "troubled"
    cachable = False
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    failures: ClassVar[list] = []
    """Errors of the next requests, first to last; None: a request that works."""
    refused_uploads: ClassVar[list] = []
    """Names whose upload fails."""
    uploads: ClassVar[list] = []
    """Paths that were uploaded."""
    round_trip = 0.0
    """Seconds that each request takes."""
    requests: ClassVar[list] = []
    """Path, start and end of each read."""
    at_once = 0
    most_at_once = 0
    _lock = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("troubled://"))

    def cat_file(self, path, start=None, end=None, **options):
        kind = type(self)
        with self._lock:
            kind.requests.append((path, start, end))
            kind.at_once += 1
            kind.most_at_once = max(kind.most_at_once, kind.at_once)
            failure = kind.failures.pop(0) if kind.failures else None
        try:
            if kind.round_trip:
                time.sleep(kind.round_trip)
            if failure is not None:
                raise failure
            return super().cat_file(path, start=start, end=end, **options)
        finally:
            with self._lock:
                kind.at_once -= 1

    def put_file(self, lpath, rpath, **options):
        if rpath.rpartition("/")[2] in self.refused_uploads:
            raise PermissionError("Access Denied")
        type(self).uploads.append(rpath)
        super().put_file(lpath, rpath, **options)

    @classmethod
    def reset(cls):
        cls.refused_uploads, cls.uploads = [], []
        cls.failures, cls.round_trip, cls.requests, cls.most_at_once = [], 0.0, [], 0
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]


fsspec.register_implementation("troubled", TroubledFileSystem, clobber=True)


def upload(folder, address):
    """Copy a folder of this machine to an address, file by file."""
    files, root = fsspec.core.url_to_fs(address)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files.pipe_file(f"{root}/{path.relative_to(folder)}", path.read_bytes())
