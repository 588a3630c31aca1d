"""`progress.json`: how far an interrupted preparation was."""

import hashlib
import json
from pathlib import Path
from typing import Any

from blt.checkpoint import write_file
from blt.errors import DataError


def write_progress(path: Path, progress: dict[str, Any]) -> None:
    """Note how far a run is, with a checksum of the note."""
    write_file(path, json.dumps({**progress, "sha256": _checksum(progress)}).encode())


def read_progress(path: Path) -> dict[str, Any] | None:
    """Return what was noted last; None if nothing was.

    Raises:
        DataError: it is not what `write_progress` wrote.
    """
    try:
        progress = json.loads(path.read_bytes())
        if not isinstance(progress, dict) or progress.pop("sha256", None) != _checksum(progress):
            raise DataError(f"{path.name} is damaged or of another version")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path.name} cannot be read: {error}") from None
    return progress


def _checksum(progress: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(progress, sort_keys=True).encode()).hexdigest()
