"""`blt prepare`: text, JSONL, Parquet or a data set → shards and an index."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from blt.configuration import field_help
from blt.data.documents import Format
from blt.data.prepare import PrepareProgress, PrepareSummary, Report
from blt.data.prepare import prepare as prepare_shards
from blt.data.prepare_config import PrepareConfig

_HELP = field_help(PrepareConfig)


@click.command()
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option("--out", required=True, metavar="DIR", help=_HELP["out"])
@click.option("--dataset", metavar="NAME", help=_HELP["dataset"])
@click.option("--dataset-config", metavar="NAME", help=_HELP["dataset_config"])
@click.option("--split", default="train", show_default=True, metavar="NAME", help=_HELP["split"])
@click.option("--format", type=click.Choice(get_args(Format)), default="auto", show_default=True, help=_HELP["format"])
@click.option("--text-field", default="text", show_default=True, metavar="NAME", help=_HELP["text_field"])
@click.option("--validation", type=float, default=0.01, show_default=True, help=_HELP["validation"])
@click.option("--shard-mb", type=float, default=256.0, show_default=True, help="Size of a shard, in 10^6 bytes.")
@click.option("--seed", type=int, default=0, show_default=True, help=_HELP["seed"])
@click.option("--overwrite", is_flag=True, help=_HELP["overwrite"])
def prepare(inputs: tuple[str, ...], shard_mb: float, **options: Any) -> None:
    """Turn text, JSONL, Parquet or a data set into training shards.

    Text is divided into documents by lines that are exactly <|endoftext|>. Inputs may end in .gz, .xz or .zst.
    An interrupted run goes on when the same command is given again.
    """
    config = PrepareConfig(inputs=inputs, shard_bytes=round(shard_mb * 1e6), **options)
    with _progress_bar() as report:
        summary = prepare_shards(config, progress=report)
    _print(summary)


@contextmanager
def _progress_bar() -> Iterator[Report]:
    """Show how far a run is on standard error, if that is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[documents]:,} documents"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def report(progress: PrepareProgress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bar.add_task(progress.stage, total=progress.total_bytes, documents=0)
            bar.update(tasks[progress.stage], completed=progress.num_bytes, documents=progress.num_documents)

        yield report


def _print(summary: PrepareSummary) -> None:
    if summary.was_already_prepared:
        click.echo(f"already prepared, nothing to do: {summary.out}")
    for split, entry in summary.splits.items():
        counts = (
            f"{entry['num_documents']:>12,} documents {entry['num_bytes']:>16,} bytes {len(entry['shards']):>4} shards"
        )
        click.echo(f"{split:<10} {counts}  checksum {entry['checksum'][:12]}")
    click.echo(f"in {summary.out}")
