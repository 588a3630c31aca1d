"""Options that several verbs share, so that they mean the same everywhere."""

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from blt.cli.types import MAX_SEED, Count, Dtype, Name
from blt.errors import ConfigurationError

if TYPE_CHECKING:
    from blt.training import Recipe

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _usable(context: click.Context, parameter: click.Parameter, name: str) -> str:
    """Refuse a device that PyTorch does not know or this machine does not have; return its name."""
    from blt.distributed import choose_device  # PyTorch takes a second to import, and --help needs none

    try:
        return str(choose_device(name))
    except ConfigurationError as error:
        raise click.BadParameter(str(error).removeprefix("device: "), context, parameter) from None


def fields_as_options(arguments: list[str]) -> dict[str, object]:
    """Read what sets fields of a configuration: `--a.b value` and `--a.b=value`."""
    overrides: dict[str, object] = {}
    rest = list(arguments)
    while rest:
        key = rest.pop(0)
        if not key.startswith("--"):
            raise ConfigurationError(f"{key}: expected --field value; `blt train --fields` lists the fields")
        name, equals, value = key.removeprefix("--").partition("=")
        if not equals and not rest:
            raise ConfigurationError(f"{key}: no value given; write --{name} VALUE")
        overrides[name] = value if equals else rest.pop(0)
    return overrides


def read_recipe(path: str, *, overrides: Mapping[str, object] | None = None) -> "Recipe":
    """Read a recipe, and show in one line which of its fields go by former names."""
    from blt.training import load_recipe

    with warnings.catch_warnings(record=True) as deprecated:
        warnings.simplefilter("always", FutureWarning)
        recipe = load_recipe(path, overrides=overrides)
    for warning in deprecated:
        click.echo(f"blt: {warning.message}", err=True)
    return recipe


force_option = click.option("--force", "-f", is_flag=True, help="Replace a file that is there.")


def refuse_unread(context: click.Context, *names: str, unless: bool, reason: str) -> None:
    """Refuse options that were given though nothing would read them.

    Args:
        context: of the verb.
        names: of its parameters.
        unless: whether something reads them.
        reason: what to say after the option's name.

    Raises:
        ConfigurationError: one was given.
    """
    for parameter in context.command.params:
        is_given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if parameter.name in names and is_given and not unless:
            raise ConfigurationError(f"{max(parameter.opts, key=len)}: {reason}")


def seed_option(help: str, *, default: int | None = 0) -> Decorator:
    """Return the option --seed, with what it is the seed of."""
    return click.option("--seed", type=Count(0, MAX_SEED), default=default, show_default=default is not None, help=help)


def dtype_option(*dtypes: str, default: str = "float32") -> Decorator:
    """Return the option --dtype, with the types that the verb can compute in."""
    return click.option(
        "--dtype", type=Dtype(*dtypes), metavar="|".join(dtypes), default=default, show_default=True,
        help="Of the weights; fp32 and bf16 for short.",
    )  # fmt: skip


model_option = click.option(
    "--model",
    type=Name(),
    metavar="PATH_OR_NAME",
    help="Model folder, name in checkpoints/ or on the Hub; the bundled model if not given.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    callback=_usable,
    help="Where to compute, as PyTorch names it; auto: a GPU if there is one.",
)
static_option = click.option(
    "--static",
    "is_static",
    is_flag=True,
    help="Write by compiled steps of fixed shapes, for a GPU and many bytes: the first takes about a minute.",
)
data_option = click.option(
    "--data", type=Name(), required=True, metavar="FILE", help="Text, JSONL or Parquet, also compressed; - reads input."
)
limit_option = click.option("--limit", type=Count(), metavar="N", help="Read the first N documents only.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
