"""Files of folders that anyone may have made: plain ones, that lie in their folder, up to a size.

A pipe would hang, a device would never end, and a link may name a secret of the reader's, which a saved or uploaded
copy would give away. The links of the Hub's cache are followed, since all its files are links.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from blt.errors import BLTError, ModelFolderError

MAX_JSON_BYTES = 64 * 2**20
"""The largest JSON file that is read: an index of shards has some hundred bytes per tensor."""
MAX_JSON_DEPTH = 64
"""How many tables and lists may lie within one another."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_NOTE = "a Git LFS pointer, not the file itself; run `git lfs pull` where it was cloned, or download it again"


def open_plain(path: Path, *, error: type[BLTError] = ModelFolderError) -> BinaryIO:
    """Open a plain file that lies in its folder.

    Raises:
        ModelFolderError: (or the given class) it is missing, may not be read, is no plain file, or a link to elsewhere.
    """
    if not _lies_in_its_folder(path):
        raise error(f"{path}: is a link to another folder, which is not followed; put the file itself there")
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except OSError as reason:
        raise error(f"{path}: cannot be read ({reason.strerror})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise error(f"{path}: is no plain file; a folder, a pipe or a device is not read")
    return os.fdopen(descriptor, "rb")


def read_plain(path: Path, *, max_bytes: int, error: type[BLTError] = ModelFolderError) -> bytes:
    """Read a plain file whole.

    Raises:
        ModelFolderError: (or the given class) as `open_plain`, or it is larger than `max_bytes`.
    """
    with open_plain(path, error=error) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise error(f"{path}: {size:,} bytes; at most {max_bytes:,} are read")
        try:
            return file.read(max_bytes)
        except OSError as reason:
            raise error(f"{path}: cannot be read ({reason.strerror})") from None


def load_json(path: Path, *, error: type[BLTError] = ModelFolderError) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelFolderError: (or the given class) the file is missing, too large or too deep, or holds no JSON object.
    """
    content = read_plain(path, max_bytes=MAX_JSON_BYTES, error=error)
    if content.startswith(LFS_POINTER):
        raise error(f"{path}: {LFS_NOTE}")
    try:
        values = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as reason:
        raise error(f"{path}: not readable as JSON ({reason})") from None
    if not isinstance(values, dict):
        raise error(f"{path}: expected a JSON object, found {type(values).__name__}")
    if _depth(values) > MAX_JSON_DEPTH:
        raise error(f"{path}: tables within tables, more than {MAX_JSON_DEPTH} deep")
    return values


def _lies_in_its_folder(path: Path) -> bool:
    """Whether a path is no link, or one to a file in the same folder or in the Hub's cache of the same model."""
    if not path.is_symlink():
        return True
    folder, target = Path(os.path.realpath(path.parent)), Path(os.path.realpath(path))
    if target.is_relative_to(folder):
        return True
    # models--OWNER--NAME/snapshots/REVISION/config.json -> ../../blobs/CHECKSUM
    snapshots = [parent for parent in folder.parents if parent.name == "snapshots"]
    return any(target.parent == parent.parent / "blobs" for parent in snapshots)


def _depth(values: Any) -> int:
    """Count how deep tables and lists lie within one another, without recursion."""
    depth, level = 0, [values]
    while level:
        depth += 1
        parts = (part.values() if isinstance(part, dict) else part for part in level)
        level = [item for part in parts for item in part if isinstance(item, dict | list)]
    return depth
