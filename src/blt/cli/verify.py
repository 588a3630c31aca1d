"""`blt verify`: the laws of causality and isolation, on a checkpoint."""

import json

import click
from rich.table import Table

from blt.api import ByteLM
from blt.cli.console import OutputConsole
from blt.cli.options import device_option, dtype_option, json_option, seed_option
from blt.cli.types import Name
from blt.codec import to_bytes
from blt.inspection import LawReport
from blt.inspection import verify as verify_lm
from blt.lm import require_finite_model
from blt.lm.finite import PARAGRAPH


@click.command()
@click.argument("model", type=Name(), required=False, metavar="[MODEL]")
@click.option("--text", metavar="TEXT", help="Try the laws on this text, beside random bytes; its first 2,048 bytes.")
@seed_option("Seed of random bytes and positions.")
@dtype_option("float32", "bfloat16")
@device_option
@json_option
@click.pass_context
def verify(
    context: click.Context, model: str | None, text: str | None, seed: int, dtype: str, device: str, as_json: bool
) -> None:
    """Check the laws on a model.

    MODEL is a folder or a name on the Hub; the bundled model if not given. What the model knows after a byte may depend
    on that byte and earlier ones of its document, and on nothing else: not on later bytes, on its neighbours in a row
    or batch, on padding, or on the way it is computed. Exit status 0 if every law held, 1 if one is broken.
    """
    lm = ByteLM.from_pretrained(model, dtype=dtype, device=device)
    require_finite_model(lm, PARAGRAPH)
    reports = verify_lm(lm, text=None if text is None else to_bytes(text), seed=seed)
    held = all(report.held for report in reports)
    if as_json:
        click.echo(json.dumps({"held": held, "laws": [report.to_dict() for report in reports]}))
    else:
        _print(reports)
    if not held:
        context.exit(1)


def _print(reports: list[LawReport]) -> None:
    table = Table("law", "", "largest deviation", "allowed", "where", box=None, header_style="bold", pad_edge=False)
    for report in reports:
        verdict = "[green]held[/]" if report.held else "[bold red]BROKEN[/]"
        place = "" if report.held else report.where
        table.add_row(report.law, verdict, f"{report.deviation:.2g}", f"{report.tolerance:g}", place)
    OutputConsole().print(table)
    broken = [report.law for report in reports if not report.held]
    verdict = f"{len(broken)} of {len(reports)} laws are broken" if broken else f"all {len(reports)} laws held"
    click.echo(f"\n{verdict}")
