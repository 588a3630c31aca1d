"""The command `blt`: one file per verb.

Every error that the package raises on purpose becomes one line on standard error and exit status 2; `--debug` shows
the traceback instead.
"""

import importlib
import os
import sys

import click

from blt import __version__
from blt.errors import BLTError

VERBS = {
    "generate": "Continue a text.",
    "prepare": "Turn text, JSONL, Parquet or a data set into training shards.",
    "train": "Train by a recipe: entropy model, threshold, BLT.",
    "evaluate": "Measure bits per byte on a file.",
    "bench": "Measure how fast a model writes, reads or trains here.",
    "patch": "Show how a text falls into patches.",
    "verify": "Check the laws on a model.",
    "calibrate": "Find the threshold for a wanted mean patch length.",
    "convert": "Turn a model folder of other software into one of blt, or back.",
    "byteify": "Put a pretrained Transformer between new local modules.",
    "plan": "Show parameters, FLOPs per byte and memory from a configuration alone.",
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


@click.command(cls=_Verbs, name="blt", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="blt")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
def cli(debug: bool) -> None:
    """Language models that read raw bytes: train, evaluate, generate, inspect."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; never returns.

    Args:
        arguments: what follows `blt`; the process's own by default.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    sys.exit(_run(arguments, debug=debug))


def _run(arguments: list[str], *, debug: bool) -> int:
    try:
        status = cli.main(arguments, prog_name="blt", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.ClickException as error:
        error.show()
        return 2
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        click.echo("stopped", err=True)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (BLTError, OSError, MemoryError) as error:
        if debug:
            raise
        click.echo(f"blt: {_one_line(error)}", err=True)
        return 2
    return status if isinstance(status, int) else 0  # what a verb gave to `context.exit`, if it did


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and not isinstance(error, BLTError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
