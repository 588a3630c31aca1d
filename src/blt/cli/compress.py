"""`blt compress`: a file, smaller by what a model predicts of it."""

import sys
from pathlib import Path

import click

from blt.api import ByteLM
from blt.checkpoint import write_file
from blt.cli.console import progress_bar
from blt.cli.options import dtype_option, force_option, model_option
from blt.cli.types import Name
from blt.compression import DEFAULT_LEVEL, LEVELS
from blt.compression import compress as compress_bytes
from blt.compression.archive import DTYPES
from blt.configuration import check
from blt.errors import DataError

SUFFIX = ".blt"

output_option = click.option(
    "--output", "-o", type=Name(), metavar="FILE", help="Where to write; - is standard output, as for input from there."
)


@click.command()
@click.argument("file", type=Name(), metavar="FILE")
@output_option
@click.option(
    "--level",
    type=click.IntRange(min(LEVELS), max(LEVELS)),
    default=DEFAULT_LEVEL,
    show_default=True,
    help="1: longer patches (threshold + 0.6 nats), blocks up to 16 KiB; 2: the model's own threshold, blocks up to "
    "64 KiB, of which 2 KiB are seen; 3: blocks up to 128 KiB, seen whole, and few of them: smallest, slower.",
)
@click.option(
    "--learn", is_flag=True, help="Learn from the text while coding: better on texts unlike the training text."
)
@model_option
@dtype_option(*DTYPES, default="int8")
@force_option
def compress(
    file: str, output: str | None, level: int, learn: bool, model: str | None, dtype: str, force: bool
) -> None:
    """Compress a file by a model's predictions.

    FILE becomes FILE.blt, and stays; - reads standard input. The same model decompresses it, exactly or not at all. No
    file grows by more than 64 bytes.
    """
    target = output_path(file, output, default=f"{file}{SUFFIX}", force=force)
    data = read_input(file)
    lm = ByteLM.from_pretrained(model, dtype=dtype)
    with progress_bar("compressing") as report:
        compressed = compress_bytes(lm, data, level=level, learn=learn, progress=report)
    write_output(target, compressed)


def output_path(file: str, output: str | None, *, default: str, force: bool) -> Path | None:
    """Return where to write; None is standard output.

    Raises:
        ConfigurationError: something is there.
    """
    if (output or file) == "-":
        return None
    path = Path(output or default)
    check(force or not path.exists(), f"{path}: is there; give another name by --output, or --force to replace it")
    return path


def read_input(file: str) -> bytes:
    """Return all bytes of a file, or of standard input."""
    if file == "-":
        return sys.stdin.buffer.read()
    if Path(file).is_dir():
        raise DataError(f"{file}: is a folder; give a file, such as an archive of it by tar")
    return Path(file).read_bytes()


def write_output(path: Path | None, data: bytes) -> None:
    """Write a file, whole or not at all, or standard output."""
    if path is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_file(path, data)
