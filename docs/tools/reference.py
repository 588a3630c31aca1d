"""Pages of the reference that are written at build time: every verb's help, and every field of a recipe."""

import click

from blt import cli
from blt.configuration import describe_fields


def command_line_page() -> str:
    """Return the page of all verbs, each with the help that it prints."""
    sections = [
        "# Command line",
        "Every verb with the text of its `--help`, written when this site was built. `blt --debug VERB …` shows a "
        "traceback where something fails; `blt --version` prints the version. Errors are one line, with exit status 2.",
    ]
    for verb, summary in cli.VERBS.items():
        sections += [f"## blt {verb} {{ #{verb} }}", summary, f"```text\n{help_of(verb)}\n```"]
    return "\n\n".join(sections) + "\n"


def help_of(verb: str) -> str:
    """Return what `blt VERB --help` prints, 80 characters wide."""
    group = cli.cli
    parent = click.Context(group, info_name="blt")
    command = group.get_command(parent, verb)
    assert command is not None, verb
    with click.Context(
        command,
        info_name=verb,
        parent=parent,
        terminal_width=80,
        max_content_width=80,
        help_option_names=["-h", "--help"],
    ) as context:
        return command.get_help(context).rstrip()


def recipe_page() -> str:
    """Return the page of all fields of a recipe, as `blt train --fields` lists them."""
    from blt.model import PRESETS
    from blt.training import Recipe

    sections = [
        "# Recipe fields",
        "Every field of a recipe, as `blt train --fields` lists them, written when this site was built. A heading is "
        "the table in the TOML file; on the command line a field is an option with its whole path, such as "
        "`--blt.loop.num_steps 500`. "
        f"`blt.model.preset` (one of {', '.join(f'`{name}`' for name in PRESETS)}) stands for a named shape, whose "
        "single fields can be changed besides.",
    ]
    groups: dict[str, list[str]] = {}
    for row in describe_fields(Recipe):
        place, _, name = row.path.rpartition(".")
        default = "required" if row.default is None else f"`{row.default}`"
        only = f" *Only with `type = {row.variant}`.*" if row.variant else ""
        kind = row.type.replace("|", "\\|")
        groups.setdefault(place, []).append(f"| `{name}` | {kind} | {default} | {row.help}{only} |")
    for place, rows in groups.items():
        title = f"`[{place}]`" if place else "The recipe itself"
        sections.append(f"## {title}")
        sections.append("\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *rows]))
    return "\n\n".join(sections) + "\n"
