"""Options that several verbs share, so that they mean the same everywhere."""

import click
import torch

from blt.errors import ConfigurationError


def _usable(context: click.Context, parameter: click.Parameter, name: str) -> str:
    """Refuse a device that PyTorch does not know or this machine does not have."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise click.BadParameter(f"{name!r} cannot be used ({reason}); try cpu", context, parameter) from None
    return name


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


model_option = click.option(
    "--model",
    metavar="PATH_OR_NAME",
    help="Model folder, name in checkpoints/ or on the Hub; the bundled model if not given.",
)
device_option = click.option(
    "--device", default="cpu", show_default=True, callback=_usable, help="Where to compute, as PyTorch names it."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
