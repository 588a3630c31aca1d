"""Files and folders that are whole or absent: written under another name, then renamed."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from blt.errors import BLTError, ModelFolderError

MAX_JSON_BYTES = 64 * 2**20
"""The largest JSON file that is read: an index of shards has some hundred bytes per tensor."""
MAX_JSON_DEPTH = 64
"""How many tables and lists may lie within one another."""


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that a kill or a full disk leaves the old one or the new one, never a part.

    Raises:
        IsADirectoryError: a folder has that name.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; give the name of a file", str(path))
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write readable JSON; whole or not at all."""
    write_file(path, (json.dumps(values, indent=2) + "\n").encode())


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder so that a kill or a full disk leaves the old one or the new one.

    Args:
        folder: its final name. What is there already is replaced once the new one is whole; killed between the two
            renames, the old one is at `.NAME.replaced` and `recover_folder` puts it back.
        fill: writes the content into the folder that it is given.

    Raises:
        ModelFolderError: the folder that one works in, or one that contains it, would be replaced.
    """
    given, folder = folder, _with_a_name(folder)
    if Path.cwd().is_relative_to(folder.resolve()):
        raise ModelFolderError(f"{given}: is the folder that one works in, or contains it; give another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(folder)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.unfinished")
    replaced = _replaced(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        fill(unfinished)
        if folder.exists():
            folder.rename(replaced)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Put a folder back whose replacement was killed between two renames; else drop what such a kill left."""
    folder = _with_a_name(folder)
    if not folder.name:  # the root, which nothing ever replaces
        return
    replaced = _replaced(folder)
    if replaced.exists():
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(folder)


def _with_a_name(folder: Path) -> Path:
    """Return the path with what `.` or `..` stand for at its end, so that names beside it can be made."""
    return folder.resolve() if folder.name in ("", "..") else folder


def _replaced(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def load_json(path: Path, *, error: type[BLTError] = ModelFolderError) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelFolderError: (or the given class) the file is missing, too large or too deep, or holds no JSON object.
    """
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise error(f"{path}: {size:,} bytes of JSON; at most {MAX_JSON_BYTES:,} are read")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as reason:
        if isinstance(reason, error):
            raise
        raise error(f"{path}: not readable as JSON ({reason})") from None
    if not isinstance(values, dict):
        raise error(f"{path}: expected a JSON object, found {type(values).__name__}")
    if _depth(values) > MAX_JSON_DEPTH:
        raise error(f"{path}: tables within tables, more than {MAX_JSON_DEPTH} deep")
    return values


def _depth(values: Any) -> int:
    """Count how deep tables and lists lie within one another, without recursion."""
    depth, level = 0, [values]
    while level:
        depth += 1
        parts = (part.values() if isinstance(part, dict) else part for part in level)
        level = [item for part in parts for item in part if isinstance(item, dict | list)]
    return depth
