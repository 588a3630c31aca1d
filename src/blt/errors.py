"""Every error that this package raises on purpose.

    BLTError                        (Exception)
    ├── ConfigurationError          (ValueError)    a field, recipe or preset that cannot be
    ├── DataError                   (ValueError)    a text, document or shard that cannot be read
    ├── ModelFolderError            (ValueError)    a model folder that is missing, broken or of another shape
    ├── CheckpointError             (ValueError)    a training checkpoint that cannot be resumed
    ├── OutputError                 (OSError)       a file or folder that cannot be written, such as on a full disk
    ├── MissingExtraError           (ImportError)   an optional dependency that is not installed
    ├── TrainingError               (RuntimeError)  a run that cannot go on, such as a loss that is not finite
    └── CertificationError          (RuntimeError)  a figure that decoding does not bear out

Each message says what was wrong, the value, and the way out, on one line: the command line prints it and exits with
status 2. What a message repeats of a broken file can be anything, so it is shortened, in printable characters.
"""

import errno
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Numbers of the system's errors for no room on the disk, in the quota, or under the limit on the size of a file."""
MAX_MESSAGE = 1000
"""Characters of a message; what is longer is cut in its middle."""


class BLTError(Exception):
    """Base of every error that this package raises on purpose."""

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


def one_line(text: str) -> str:
    """Put a text on one line of printable characters, of bounded length."""
    if len(text) > MAX_MESSAGE:
        text = f"{text[: MAX_MESSAGE // 2]} … {text[-MAX_MESSAGE // 2 :]}"
    words = "".join(" " if character in "\r\n\t" else character for character in text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


class ConfigurationError(BLTError, ValueError):
    """A field, recipe or preset that cannot be."""


class DataError(BLTError, ValueError):
    """A text, document or shard that cannot be read."""


class ModelFolderError(BLTError, ValueError):
    """A model folder that is missing, broken or of another shape."""


class CheckpointError(BLTError, ValueError):
    """A training checkpoint that cannot be resumed."""


class OutputError(BLTError, OSError):
    """A file or folder that cannot be written, such as on a full disk."""

    def __init__(self, reason: str, *, path: Path | None = None, number: int | None = None) -> None:
        super().__init__(reason if path is None else f"{path}: {reason}")
        self.reason, self.path, self.errno = reason, path, number


class MissingExtraError(BLTError, ImportError):
    """An optional dependency that is not installed."""

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}: pip install 'blt-llm[{extra}]'")


class TrainingError(BLTError, RuntimeError):
    """A run that cannot go on, such as a loss that is not finite."""


class CertificationError(BLTError, RuntimeError):
    """A figure that decoding does not bear out."""
