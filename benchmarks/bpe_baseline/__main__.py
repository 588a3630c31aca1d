"""The command: runs what has not run yet, then writes the record."""

import json
from pathlib import Path

import click
import torch
from benchmarks.record import write_record

from .any_language import any_language
from .draw import draw
from .noise import noise
from .queue import read_results, work_off
from .report import CLAIM, about_texts, record
from .texts import CORPORA, LANGUAGES, STORIES, Files
from .training import Prepared


@click.command()
@click.option("--stories-train", required=True, help="TinyStories to train on.")
@click.option("--stories-dev", required=True, help="To tune on.")
@click.option("--stories-test", required=True, help="To report.")
@click.option("--python-train", required=True, help="Python files to train on: JSON lines with path and text.")
@click.option("--python-test", required=True, help="To report.")
@click.option("--languages", required=True, help="One text in many languages: JSON lines with code and text.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="For models, and what runs share.")
@click.option("--runs", type=click.Path(path_type=Path), required=True, help="Finished runs, one line each.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Where the record is written; SVG beside it."
)
@click.option("--corpus", "corpora", type=click.Choice(CORPORA), multiple=True, help="These only.")
@click.option("--workers", default=1, show_default=True, help="Runs side by side, each of one thread.")
@click.option("--minutes", type=float, help="Begin no run after this long; the same command goes on later.")
def main(
    *,
    work: Path,
    runs: Path,
    out: Path,
    corpora: tuple[str, ...],
    workers: int,
    minutes: float | None,
    **files: str,
) -> None:
    """Run the equal fight, and write its record."""
    work.mkdir(parents=True, exist_ok=True)
    told = Files(**files)
    chosen = tuple(corpora) or CORPORA
    seconds = None if minutes is None else 60 * minutes
    work_off(told, work=work, runs=runs, corpora=chosen, workers=workers, seconds=seconds)
    torch.set_num_threads(1)
    finished = read_results(runs)
    results = {"texts": about_texts(told, chosen)} | record(finished, chosen)
    before = json.loads(out.read_text())["results"] if out.exists() else {}
    for corpus, name, measure in ((LANGUAGES, "any_language", any_language), (STORIES, "noise", noise)):
        if corpus in chosen:
            found = measure(finished, Prepared(told.corpus(corpus), work / corpus), work)
            results[name] = found or before.get(name)
    write_record(out, claim=CLAIM, device="cpu", results=results)
    draw(results, out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
