"""`blt prepare`: text, JSONL, Parquet or a data set → shards and an index."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from blt.cli.reading_options import format_option, skip_bad_option, text_field_option
from blt.cli.types import Name, Number
from blt.configuration import field_help
from blt.data.document_limit import MAX_DOCUMENT_BYTES
from blt.data.prepare import PrepareProgress, PrepareSummary, Report
from blt.data.prepare import prepare as prepare_shards
from blt.data.prepare_config import PrepareConfig
from blt.data.shards import Shards, index_of
from blt.distributed import joined_world
from blt.errors import ConfigurationError

_HELP = field_help(PrepareConfig)


@click.command()
@click.argument("inputs", type=Name(), nargs=-1, metavar="INPUT...")
@click.option("--out", type=Name(), metavar="DIR", help=_HELP["out"])
@click.option(
    "--check",
    type=Name(),
    metavar="DIR",
    help="Compare every file of a prepared folder with its checksum, and prepare nothing.",
)
@click.option("--dataset", metavar="NAME", help=_HELP["dataset"])
@click.option("--dataset-config", metavar="NAME", help=_HELP["dataset_config"])
@click.option("--split", metavar="NAME", help=_HELP["split"])
@format_option
@text_field_option
@skip_bad_option
@click.option(
    "--max-document-mb",
    type=Number(),
    default=MAX_DOCUMENT_BYTES / 1e6,
    show_default=True,
    help="Refuse a longer document, in 10^6 bytes; one is held in memory at a time.",
)
@click.option("--validation", type=Number(), default=0.01, show_default=True, help=_HELP["validation"])
@click.option("--shard-mb", type=Number(), default=256.0, show_default=True, help="Size of a shard, in 10^6 bytes.")
@click.option("--seed", type=int, default=0, show_default=True, help=_HELP["seed"])
@click.option("--overwrite", is_flag=True, help=_HELP["overwrite"])
def prepare(
    inputs: tuple[str, ...],
    out: str | None,
    check: str | None,
    shard_mb: float,
    max_document_mb: float,
    **options: Any,
) -> None:
    """Turn text, JSONL, Parquet or a data set into training shards.

    Text is divided into documents by lines <|endoftext|>. Inputs may end in .gz, .bz2, .xz or .zst; of a folder, the
    files are read whose names end as text, JSONL or Parquet do. An interrupted run goes on when the same command is
    given again. Under torchrun the processes share out the inputs.
    """
    if check is not None:
        if inputs or out is not None:
            raise click.UsageError("--check takes nothing but the folder to check; leave out INPUT and --out")
        _check(check)
        return
    if out is None:
        raise click.UsageError("Missing option '--out'.")
    config = PrepareConfig(
        inputs=inputs,
        out=out,
        shard_bytes=_bytes_of("--shard-mb", shard_mb),
        max_document_bytes=_bytes_of("--max-document-mb", max_document_mb),
        **options,
    )
    with joined_world(torch.device("cpu")) as world, _progress_bar(is_shown=world.is_main) as report:
        summary = prepare_shards(config, progress=report, world=world)
    if world.is_main:
        _print(summary)


def _bytes_of(option: str, megabytes: float) -> int:
    """Return a size in bytes.

    Raises:
        ConfigurationError: it is no finite number.
    """
    if not math.isfinite(megabytes):
        raise ConfigurationError(f"{option}: expected a number, got {megabytes}")
    return round(megabytes * 1e6)


@contextmanager
def _progress_bar(*, is_shown: bool) -> Iterator[Report]:
    """Show how far a run is on standard error, if that is a terminal and this process is to show it."""
    console = Console(stderr=True)
    if not (console.is_terminal and is_shown):
        # A bar that is only disabled ends with an empty line in older versions of rich.
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[documents]:,} documents"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(progress: PrepareProgress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bar.add_task(progress.stage, total=progress.total_bytes, documents=0)
            bar.update(tasks[progress.stage], completed=progress.num_bytes, documents=progress.num_documents)

        yield report


def _check(folder: str) -> None:
    splits = index_of(folder)["splits"]
    for split, entry in splits.items():
        if entry["num_documents"]:
            Shards.open(folder, split=split).verify()
    _print(PrepareSummary(out=folder, splits=splits, was_already_prepared=False))
    click.echo("every file is what index.json says")


def _print(summary: PrepareSummary) -> None:
    if summary.was_already_prepared:
        click.echo(f"already prepared, nothing to do: {summary.out}")
    for split, entry in summary.splits.items():
        counts = (
            f"{entry['num_documents']:>12,} documents {entry['num_bytes']:>16,} bytes {entry['num_shards']:>4} shards"
        )
        click.echo(f"{split:<10} {counts}  checksum {entry['checksum'][:12]}")
    click.echo(f"in {summary.out}")
