"""Options that several verbs share, so that they mean the same everywhere."""

import click
import torch


def _usable(context: click.Context, parameter: click.Parameter, name: str) -> str:
    """Refuse a device that PyTorch does not know or this machine does not have."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise click.BadParameter(f"{name!r} cannot be used ({reason}); try cpu", context, parameter) from None
    return name


model_option = click.option(
    "--model", metavar="PATH_OR_NAME", help="Model folder, or name on the Hub; the bundled model if not given."
)
device_option = click.option(
    "--device", default="cpu", show_default=True, callback=_usable, help="Where to compute, as PyTorch names it."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
