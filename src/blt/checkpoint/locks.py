"""One process at a time: a lock that dies with the process that holds it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from blt.errors import BLTError

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextmanager
def locked(path: Path, *, refusal: BLTError | None = None) -> Iterator[None]:
    """Hold a lock while the block runs; the file is deleted at its end.

    File systems without locks are used without one.

    Args:
        path: of the lock file.
        refusal: raised at once if another process holds the lock; None: wait for it.

    Raises:
        OSError: the file cannot be made.
    """
    lock = FileLock(path, timeout=-1 if refusal is None else 0)
    try:
        lock.acquire()
    except Timeout:
        assert refusal is not None, "without a refusal the lock is waited for"
        raise refusal from None
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    # Deleted while it is held: whoever waits for a file that is no longer there opens a new one (filelock checks).
    try:
        yield
    finally:
        if lock.is_locked:
            path.unlink(missing_ok=True)
            lock.release()
