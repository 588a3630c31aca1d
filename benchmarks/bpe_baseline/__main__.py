"""The command: runs what has not run yet, then writes the record."""

from pathlib import Path

import click

from .queue import work_off
from .texts import CORPORA, Files


@click.command()
@click.option("--stories-train", required=True, help="TinyStories to train on.")
@click.option("--stories-dev", required=True, help="To tune on.")
@click.option("--stories-test", required=True, help="To report.")
@click.option("--python-train", required=True, help="Python files to train on: JSON lines with path and text.")
@click.option("--python-test", required=True, help="To report.")
@click.option("--languages", required=True, help="One text in many languages: JSON lines with code and text.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Where finished runs are kept.")
@click.option("--corpus", "corpora", type=click.Choice(CORPORA), multiple=True, help="These only.")
@click.option("--workers", default=1, show_default=True, help="Runs side by side, each of one thread.")
@click.option("--minutes", type=float, help="Begin no run after this long; the same command goes on later.")
def main(*, work: Path, corpora: tuple[str, ...], workers: int, minutes: float | None, **files: str) -> None:
    """Run the equal fight, and write its record."""
    work.mkdir(parents=True, exist_ok=True)
    told = Files(**files)
    work_off(
        told,
        work,
        corpora=tuple(corpora) or CORPORA,
        workers=workers,
        seconds=None if minutes is None else 60 * minutes,
    )


if __name__ == "__main__":
    main()
