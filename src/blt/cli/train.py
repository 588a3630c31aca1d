"""`blt train`."""

import click

from blt.errors import ConfigurationError


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("recipe", type=click.Path())
@click.option("--out", default=None, help="Run folder; the recipe's own by default.")
@click.option("--fields", is_flag=True, help="List every field that can be set, with its meaning, and stop.")
@click.pass_context
def train(context: click.Context, recipe: str, out: str | None, fields: bool) -> None:
    """Train by a recipe: entropy model, threshold, BLT.

    RECIPE is a TOML file. Any of its fields can be set here: --blt.loop.rows 8. Run the same command again to go on
    where a run was stopped.
    """
    from blt.training.recipe import load_recipe

    if fields:
        _list_fields()
        return
    overrides = _read_overrides(context.args)
    if out is not None:
        overrides["out"] = out
    loaded = load_recipe(recipe, overrides=overrides)

    from blt.training import run_recipe
    from blt.training.loop import Stopped

    try:
        run_recipe(loaded)
    except Stopped as stopped:
        click.echo(str(stopped), err=True)
        context.exit(130)


def _read_overrides(arguments: list[str]) -> dict[str, object]:
    """Read `--a.b value` and `--a.b=value`."""
    overrides: dict[str, object] = {}
    rest = list(arguments)
    while rest:
        key = rest.pop(0)
        if not key.startswith("--"):
            raise ConfigurationError(f"{key}: expected --field value; `blt train RECIPE --fields` lists the fields")
        name, equals, value = key.removeprefix("--").partition("=")
        if not equals and not rest:
            raise ConfigurationError(f"{key}: no value given")
        overrides[name] = value if equals else rest.pop(0)
    return overrides


def _list_fields() -> None:
    from blt.configuration import walk_fields
    from blt.training.recipe import Recipe

    for path, _, text in walk_fields(Recipe):
        click.echo(f"--{path}\n    {text}")
