"""`blt patch`: how a text falls into patches."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from blt.api import ByteLM
from blt.checkpoint import check_page, write_page
from blt.cli.console import OutputConsole
from blt.cli.options import device_option, json_option, model_option, refuse_unread
from blt.cli.types import Count, Name, Number
from blt.codec import to_bytes
from blt.configuration import from_dict, tag_of, to_dict
from blt.errors import ConfigurationError
from blt.inspection import html_page, print_patches, read, view_patches
from blt.patching import PatchRule

HEATS = ("entropy", "surprise")
RULES = ("entropy", "entropy-rise", "entropy-and-rise", "space", "static", "byte")


@click.command()
@click.argument("text", metavar="TEXT|FILE")
@model_option
@click.option("--rule", type=click.Choice(RULES), help="Where patches end; the model's own rule if not given.")
@click.option("--threshold", type=Number(), metavar="NATS", help="θ of a rule that looks at entropies.")
@click.option("--rise-threshold", type=Number(), metavar="NATS", help="Least rise, with --rule entropy-and-rise.")
@click.option("--length", type=Count(min=None), metavar="BYTES", help="Bytes per patch, with --rule static.")
@click.option("--max-length", type=Count(min=None), metavar="BYTES", help="Cut longer patches.")
@click.option("--limit", type=Count(), default=65536, show_default=True, help="Bytes to read at most.")
@click.option(
    "--heat", type=click.Choice(HEATS), default="entropy", show_default=True,
    help="What warms a character: uncertainty about the next byte, or the bits that the character itself costs.",
)  # fmt: skip
@click.option("--html", "html_file", type=Name(), metavar="OUT", help="Write a page for the browser.")
@click.option("--show-spaces", is_flag=True, help="Show each space as ·.")
@device_option
@json_option
@click.pass_context
def patch(
    context: click.Context,
    /,
    text: str,
    model: str | None,
    limit: int,
    heat: str,
    html_file: str | None,
    show_spaces: bool,
    device: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Show how a text falls into patches.

    TEXT|FILE is the file of that name if there is one, else the text itself; - reads standard input. Patches have two
    colours by turns, and the warmer a character, the less sure the model is, having read it, what follows; or, with
    --heat surprise, the more bits it costs. Without colours, as in a pipe, │ stands between patches. The page of --html
    shows both, opens without a server, and lets the threshold be dragged.
    """
    as_text = not as_json and html_file is None
    refuse_unread(context, "show_spaces", unless=as_text, reason="only the text for a terminal has them; see --html")
    if html_file is not None:
        check_page(Path(html_file), sources=[Path(text)])
    data, title = read_text_or_file(text)
    lm = ByteLM.from_pretrained(model, device=device)
    lm.patch_rule = _rule(lm.patch_rule, {name: value for name, value in settings.items() if value is not None})
    view = view_patches(lm, data, limit=limit, with_surprise=heat == "surprise")
    if html_file is not None:
        page = html_page(view, read(lm, data[:limit]), title=title, heat=heat)
        write_page(Path(html_file), page.encode(), sources=[Path(text)])
    if as_json:
        click.echo(json.dumps(view.to_dict()))
    elif html_file is not None:
        click.echo(f"{html_file}: {len(view.patches):,} patches, mean {view.mean_patch_bytes:.2f} bytes")
    else:
        print_patches(view, OutputConsole(), show_spaces=show_spaces)


def read_text_or_file(text: str) -> tuple[bytes, str]:
    """Return the bytes that an argument means, and a title for them.

    Args:
        text: the name of a file, `-` for standard input, or else a text.
    """
    if text == "-":
        return sys.stdin.buffer.read(), "standard input"
    if os.path.exists(text) and not os.path.isdir(text):  # noqa: PTH110, PTH112 (Path refuses names that are too long)
        return Path(text).read_bytes(), Path(text).name
    return to_bytes(text), "a text"


def _rule(own: PatchRule, settings: dict[str, Any]) -> PatchRule:
    """Return the model's own rule with other settings, or another rule.

    Raises:
        ConfigurationError: a setting that the rule does not have, or lacks.
    """
    name = settings.pop("rule", tag_of(own))
    values = (to_dict(own) if name == tag_of(own) else {"type": name}) | settings
    try:
        rule: PatchRule = from_dict(PatchRule, values)
    except ConfigurationError as error:
        raise ConfigurationError(f"--rule {name}: {error}") from None
    return rule
