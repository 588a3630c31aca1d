"""`blt decompress`: the file that was compressed, every byte exact, or nothing."""

import click

from blt.api import ByteLM
from blt.cli.compress import SUFFIX, output_option, output_path, read_input, write_output
from blt.cli.console import progress_bar
from blt.cli.options import force_option, model_option
from blt.cli.types import Name
from blt.compression import Archive
from blt.compression import decompress as decompress_archive
from blt.configuration import check


@click.command()
@click.argument("file", type=Name(), metavar="FILE")
@output_option
@model_option
@force_option
def decompress(file: str, output: str | None, model: str | None, force: bool) -> None:
    """Restore a file that `blt compress` made, every byte exact.

    FILE.blt becomes FILE, and stays; - reads standard input. The weights must be those that compressed it; their type
    is in the file. Nothing is written unless all of it is right.
    """
    has_suffix = file.endswith(SUFFIX) and file != SUFFIX
    check(
        file == "-" or has_suffix or output is not None,
        f"{file}: does not end in {SUFFIX}; say where to write by --output",
    )
    target = output_path(file, output, default=file.removesuffix(SUFFIX), force=force)
    archive = Archive.unpack(read_input(file))
    lm = None if archive.model is None else ByteLM.from_pretrained(model, dtype=archive.model.dtype)
    with progress_bar("decompressing") as report:
        data = decompress_archive(lm, archive, progress=report)
    write_output(target, data)
