"""Options of the verbs that read documents, so that they mean the same everywhere."""

from typing import get_args

import click

from blt.cli.types import Name
from blt.configuration import field_help
from blt.data.kinds import Format
from blt.data.prepare_config import PrepareConfig

_HELP = field_help(PrepareConfig)

format_option = click.option(
    "--format", type=click.Choice(get_args(Format)), default="auto", show_default=True, help=_HELP["format"]
)
text_field_option = click.option("--text-field", type=Name(), metavar="NAME", help=_HELP["text_field"])
skip_bad_option = click.option("--skip-bad", is_flag=True, help=_HELP["skip_bad"])
