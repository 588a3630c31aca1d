"""`blt generate`: continue a text, shown as it comes."""

import io
import json
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import click

from blt.cli.options import device_option, json_option, model_option
from blt.configuration import field_help
from blt.generation import Generation, GenerationConfig, GenerationOptions, stream
from blt.generation import generate as generate_once
from blt.lm import ByteLM

_HELP = field_help(GenerationConfig)


def _default(field: str) -> Any:
    return getattr(GenerationConfig(), field)


@click.command()
@click.option("--prompt", metavar="TEXT", help="The text to continue; a new document if not given.")
@click.option("--prompt-file", type=click.File("rb"), metavar="FILE", help="Continue a file's bytes; - reads input.")
@click.option(
    "--max-new",
    "max_new_bytes",
    type=int,
    default=_default("max_new_bytes"),
    show_default=True,
    metavar="BYTES",
    help=_HELP["max_new_bytes"],
)
@click.option(
    "--temperature", type=float, default=_default("temperature"), show_default=True, help=_HELP["temperature"]
)
@click.option("--top-k", type=int, help=_HELP["top_k"])
@click.option("--top-p", type=float, help=_HELP["top_p"])
@click.option("--seed", type=int, help=_HELP["seed"])
@click.option("--stop", multiple=True, metavar="TEXT", help=_HELP["stop"] + " May be given more than once.")
@model_option
@device_option
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@json_option
def generate(
    prompt: str | None,
    prompt_file: BinaryIO | None,
    model: str | None,
    device: str,
    dtype: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Continue a text.

    The text is shown as it comes, after the prompt. With --json, one object is printed at the end, with the keys
    `prompt`, `text` (prompt and continuation), `continuation`, `num_new_bytes` and `stopped_by`.
    """
    if prompt is not None and prompt_file is not None:
        raise click.UsageError("--prompt and --prompt-file: give one of them")
    start = prompt_file.read() if prompt_file is not None else prompt or ""
    GenerationConfig(**options)  # refuses what cannot be, before a model is loaded
    chosen = GenerationOptions(**options)  # type: ignore[typeddict-item]
    lm = ByteLM.from_pretrained(model, dtype=dtype, device=device)
    if as_json:
        click.echo(json.dumps(_described(generate_once(lm, start, **chosen))))
    else:
        _show(stream(lm, start, with_prompt=True, **chosen))


def _show(pieces: Iterator[str]) -> None:
    """Print pieces of text as they come."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # where a terminal knows few characters, it shows ? for the others
    for piece in pieces:
        click.echo(piece, nl=False)
    click.echo()


def _described(generation: Generation) -> dict[str, Any]:
    return {
        "prompt": generation.prompt.decode("utf-8", errors="replace"),
        "text": generation.text,
        "continuation": generation.continuation,
        "num_new_bytes": len(generation.new_bytes),
        "stopped_by": generation.stopped_by,
    }
