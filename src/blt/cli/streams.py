"""Standard input and output as every verb may take them: open, and able to show any text."""

import contextlib
import io
import os
import sys

from blt.errors import DataError


class _ClosedInput(io.RawIOBase):
    """Stands for a standard input that was closed: to read it is an error, not an empty text."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:  # noqa: ARG002 (io's signature)
        raise DataError("standard input: it is closed; name a file, or give the text by a pipe")


def prepare_streams() -> None:
    """Open what was closed, so that no file takes the place of a standard stream, and let any text be shown."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_ClosedInput()))
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 (open for as long as the process)
    for stream in (sys.stdout, sys.stderr):
        # Where a terminal or a pipe knows few characters, it shows ? for the others.
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


def discard_output() -> None:
    """Discard what is left of the output, since its reader has gone or its disk is full."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
