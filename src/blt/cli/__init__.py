"""The command `blt`: one file per verb.

Every error that the package raises on purpose becomes one line on standard error and exit status 2; `--debug` shows
the traceback instead.
"""

import contextlib
import importlib
import os
import sys

import click
from click.shell_completion import shell_complete

from blt import __version__
from blt.cli.streams import discard_output, prepare_streams
from blt.configuration import check
from blt.errors import FULL, BLTError, one_line

COMPLETION = "_BLT_COMPLETE"
"""The variable by which a shell asks how a command may go on, as click calls it."""

VERBS = {
    "generate": "Continue a text.",
    "prepare": "Turn text, JSONL, Parquet or a data set into training shards.",
    "train": "Train by a recipe: entropy model, threshold, BLT.",
    "evaluate": "Measure bits per byte on a file.",
    "probe": "Ask a model about the characters in words.",
    "compress": "Compress a file by a model's predictions.",
    "decompress": "Restore a file that `blt compress` made, every byte exact.",
    "bench": "Measure how fast a model writes, reads or trains here.",
    "serve": "Answer by OpenAI's API over HTTP, and show a page.",
    "patch": "Show how a text falls into patches.",
    "plot": "Draw runs, or the patch lengths and entropies of texts, as a PNG or SVG.",
    "verify": "Check the laws on a model.",
    "calibrate": "Find the threshold for a target mean patch length.",
    "convert": "Turn a model folder of other software into one of blt, or back.",
    "byteify": "Put a pretrained Transformer between new local modules.",
    "plan": "Show parameters, FLOPs per byte and memory from a configuration alone.",
    "doctor": "Show what runs here and why: kernels, processor, PyTorch, extras, GPU.",
}
"""Each verb lives in the module of its name, as the function of its name; the text is its line in `blt --help`."""


class _Verbs(click.Group):
    """Imports a verb's module only when the verb is called, so that `blt --help` is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"blt.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.command(
    cls=_Verbs,
    name="blt",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.version_option(__version__, prog_name="blt")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:  # noqa: ARG001 (`main` reads it, wherever it stands)
    """Language models that read raw bytes: train, evaluate, generate, inspect."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        context.exit(2)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; never returns.

    Args:
        arguments: what follows `blt`; the process's own by default.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    prepare_streams()
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        discard_output()
        status = 0
    except (BLTError, OSError, MemoryError, RuntimeError) as error:
        if debug or not _is_expected(error):
            raise
        _show(f"blt: {_one_line(error)}")
        status = 2
        _flush()
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    """Run a verb, and return its exit status.

    Click's own `main` is not called: it answers a broken pipe itself, with exit status 1.
    """
    if instruction := os.environ.get(COMPLETION):
        return shell_complete(cli, {}, "blt", COMPLETION, instruction)
    for argument in arguments:
        check("\0" not in argument, f"{argument!r}: no argument of a command can hold the character NUL")
    try:
        with cli.make_context("blt", arguments) as context:
            cli.invoke(context)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        _show("stopped")
        return 130
    return 0


def _show(line: str) -> None:
    """Show a line on standard error, if that can still be written."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def _flush() -> None:
    """Write what a failed verb has shown, or drop it where that cannot be."""
    try:
        sys.stdout.flush()
    except OSError:
        discard_output()


def _is_expected(error: Exception) -> bool:
    """Whether an error is shown as one line without a traceback; of PyTorch's, only out-of-memory errors are."""
    if isinstance(error, BLTError | OSError | MemoryError):
        return True
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and not isinstance(error, BLTError):
        where = f"{error.filename}: " if error.filename else ""
        way_out = "; make room and run the same command again" if error.errno in FULL else ""
        return one_line(f"{where}{error.strerror}{way_out}")
    return " ".join(str(error).split()) or type(error).__name__
