"""`blt train`: entropy model, threshold and BLT by one recipe."""

import sys

import click

from blt.cli.options import fields_as_options, read_recipe
from blt.errors import ConfigurationError


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("recipe", required=False)
@click.option("--out", default=None, metavar="DIR", help="Run folder; the recipe's own by default.")
@click.option("--fields", is_flag=True, help="List every field: type, default, meaning; then stop.")
@click.pass_context
def train(context: click.Context, recipe: str | None, out: str | None, fields: bool) -> None:
    """Train by a recipe: entropy model, threshold, BLT.

    RECIPE is a TOML file. Any of its fields can be set here as well, such as --blt.loop.batch_size 8 or
    --entropy.loop.optimizer.type muon; --fields lists them all.

    A run that was stopped or killed goes on when the same command is given again, from its last checkpoint. Several
    GPUs: torchrun --nproc-per-node 8 -m blt train RECIPE.
    """
    if fields:
        _list_fields()
        return
    if recipe is None or recipe.startswith("--"):
        raise ConfigurationError("give a recipe first: blt train RECIPE.toml --field value; see blt train --help")

    from blt.training import Stopped, run_recipe

    overrides = fields_as_options(context.args)
    if out is not None:
        overrides["out"] = out
    loaded = read_recipe(recipe, overrides=overrides)
    try:
        run_recipe(loaded)
    except Stopped as stopped:
        click.echo(str(stopped), err=True)
        sys.exit(130)


def _list_fields() -> None:
    from blt.configuration import describe_fields
    from blt.model import PRESETS
    from blt.training import Recipe

    click.echo(
        f"--blt.model.preset  {' | '.join(PRESETS)}\n    Named shape, whose single fields can be changed besides."
    )
    for row in describe_fields(Recipe):
        default = "" if row.default is None else f" = {row.default}"
        only = f"   (type = {row.variant})" if row.variant else ""
        click.echo(f"--{row.path}  {row.type}{default}{only}\n    {row.help}")
