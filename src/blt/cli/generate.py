"""`blt generate`: continue a text, shown as it comes."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from blt.api import ByteLM
from blt.cli.options import (
    device_option,
    dtype_option,
    json_option,
    model_option,
    refuse_unread,
    seed_option,
    static_option,
)
from blt.cli.types import Count, File, Number
from blt.configuration import field_help
from blt.errors import ConfigurationError
from blt.generation import Generation, GenerationConfig, GenerationOptions, stream, stream_bytes
from blt.generation import generate as generate_once
from blt.lm import StaticConfig
from blt.lm.language_model import LOADED_AS

_HELP = field_help(GenerationConfig)


def _default(field: str) -> Any:
    return getattr(GenerationConfig(), field)


def _schema(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001
    """Return the JSON of a schema that may be JSON or the name of a file."""
    if value is None or value.lstrip().startswith("{"):
        return value
    if not value:
        raise ConfigurationError("--json-schema: an empty text is neither JSON nor a file; give one of them")
    try:
        return Path(value).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"--json-schema: {value} is not UTF-8 text; give a JSON file") from None


@click.command()
@click.option("--prompt", metavar="TEXT", help="The text to continue; a new document if not given.")
@click.option("--prompt-file", type=File("rb"), metavar="FILE", help="Continue a file's bytes; - reads input.")
@click.option(
    "--max-new",
    "max_new_bytes",
    type=Count(min=None),
    default=_default("max_new_bytes"),
    show_default=True,
    metavar="BYTES",
    help=_HELP["max_new_bytes"],
)
@click.option(
    "--temperature", type=Number(), default=_default("temperature"), show_default=True, help=_HELP["temperature"]
)
@click.option("--top-k", type=Count(min=None), help=_HELP["top_k"])
@click.option("--top-p", type=Number(), help=_HELP["top_p"])
@click.option("--min-p", type=Number(), help=_HELP["min_p"])
@click.option(
    "--repetition-penalty",
    type=Number(),
    default=_default("repetition_penalty"),
    show_default=True,
    help=_HELP["repetition_penalty"],
)
@click.option("--repetition-window", type=Count(min=None), metavar="BYTES", help=_HELP["repetition_window"])
@click.option("--presence-penalty", type=Number(), default=0.0, show_default=True, help=_HELP["presence_penalty"])
@click.option("--frequency-penalty", type=Number(), default=0.0, show_default=True, help=_HELP["frequency_penalty"])
@seed_option(_HELP["seed"], default=None)
@click.option("--stop", multiple=True, metavar="TEXT", help=_HELP["stop"] + " May be given more than once.")
@click.option("--valid-utf8/--no-valid-utf8", default=None, help=_HELP["valid_utf8"])
@click.option("--regex", metavar="REGEX", help=_HELP["regex"])
@click.option("--json-schema", metavar="FILE_OR_JSON", callback=_schema, help=_HELP["json_schema"])
@click.option("--logprobs", type=Count(min=None), metavar="N", help=_HELP["logprobs"] + " Needs --json.")
@model_option
@device_option
@dtype_option(*LOADED_AS)
@static_option
@click.option("--raw", is_flag=True, help="Show the exact bytes, also where they are no UTF-8, and nothing after them.")
@json_option
@click.pass_context
def generate(
    context: click.Context,
    /,
    prompt: str | None,
    prompt_file: BinaryIO | None,
    model: str | None,
    device: str,
    dtype: str,
    is_static: bool,
    raw: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Continue a text.

    The text is shown as it comes, after the prompt; --raw shows its exact bytes, also those that are no UTF-8. With
    --json, one object is printed at the end, with the keys `prompt`, `text` (prompt and continuation), `continuation`,
    `num_new_bytes` and `stopped_by`; with --logprobs also `logprobs`, a list with `byte`, `logprob` and `top` for each
    new byte.

    With --regex or --json-schema the continuation matches, unless --max-new cuts it short; `stopped_by` then is
    `length`.
    """
    if prompt is not None and prompt_file is not None:
        raise click.UsageError("--prompt and --prompt-file: give one of them")
    refuse_unread(context, "logprobs", unless=as_json, reason="needs --json, which shows them")
    refuse_unread(context, "raw", unless=not as_json, reason="JSON holds text; leave --json out")
    GenerationConfig(**options)  # refuses what cannot be, before a model is loaded
    penalty = options["repetition_penalty"]
    refuse_unread(context, "repetition_window", unless=penalty != 1, reason="needs --repetition-penalty, other than 1")
    start = prompt_file.read() if prompt_file is not None else prompt or ""
    chosen = GenerationOptions(**options)  # type: ignore[typeddict-item]
    most = len(start) * (1 if isinstance(start, bytes) else 4) + options["max_new_bytes"] + 1  # patches, with BOS
    static = StaticConfig(max_patches=min(most, StaticConfig.max_patches)) if is_static else None
    lm = ByteLM.from_pretrained(model, dtype=dtype, device=device)
    if as_json:
        click.echo(json.dumps(_described(generate_once(lm, start, static=static, **chosen))))
    elif raw:
        for piece in stream_bytes(lm, start, with_prompt=True, static=static, **chosen):
            click.echo(piece, nl=False)
    else:
        _show(stream(lm, start, with_prompt=True, static=static, **chosen))


def _show(pieces: Iterator[str]) -> None:
    """Print pieces of text as they come."""
    for piece in pieces:
        click.echo(piece, nl=False)
    click.echo()


def _described(generation: Generation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "prompt": generation.prompt.decode("utf-8", errors="replace"),
        "text": generation.text,
        "continuation": generation.continuation,
        "num_new_bytes": len(generation.new_bytes),
        "stopped_by": generation.stopped_by,
    }
    if generation.logprobs is not None:
        described["logprobs"] = [dataclasses.asdict(entry) for entry in generation.logprobs]
    return described
