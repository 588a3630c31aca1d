"""Claims of a byte model put to the test: certified bits per byte, noise, and probes of characters.

    python benchmarks/proof.py certified v2-valid.txt --out benchmarks/records/certified.json
    python benchmarks/proof.py noise v2-valid.txt --out benchmarks/records/noise.json
    python benchmarks/proof.py probe v2-valid.txt --cute CUTE/data --out benchmarks/records/probe.json

Each is what `blt evaluate --certified`, `blt evaluate --noise` and `blt probe` print as JSON, as a record.
"""

import sys
from pathlib import Path
from typing import Any

import click
import torch
from record import write_record

from blt.api import ByteLM
from blt.data import Shards, read_documents
from blt.evaluation import certify, cute_rows, measure_noise, word_rows
from blt.evaluation import probe as probe_model
from blt.evaluation.continuations import ByteScorer
from blt.lm import fingerprint

CERTIFIED = "Bits per byte that were coded and decoded again differ from those of `blt evaluate` by less than 1%"
NOISE = "What the paper's five perturbations cost, in bits per byte and in accuracy on minimal pairs"

PROBE = "What the model knows of characters: CUTE's tasks, and tasks made of the words of held-out text"


def _progress(done: int, total: int) -> None:
    sys.stderr.write(f"\r{done / total:.0%} ")


def _options(command: Any) -> Any:
    for decorator in (
        click.argument("text", type=click.Path(exists=True, path_type=Path)),
        click.option("--limit", type=int, help="Of the documents; all if not given."),
        click.option("--model", help="The bundled model if not given."),
        click.option("--threads", default=2, show_default=True),
        click.option("--out", type=click.Path(path_type=Path), help="Write a record there."),
    ):
        command = decorator(command)
    return command


def _ready(text: Path, limit: int | None, model: str | None, threads: int) -> tuple[ByteLM, list[bytes]]:
    torch.set_num_threads(threads)
    return ByteLM.from_pretrained(model), list(read_documents(str(text)))[:limit]


def _write(out: Path | None, claim: str, results: dict[str, Any], lm: ByteLM, documents: list[bytes]) -> None:
    results |= {
        "model_fingerprint": fingerprint(lm),
        "data_checksum": Shards.from_documents(documents).checksum,
        "num_documents_given": len(documents),
    }
    click.echo(results)
    if out is not None:
        write_record(out, claim=claim, device=str(lm.device), results=results)


@click.group()
def main() -> None:
    """Measure one claim."""


@main.command()
@_options
def certified(text: Path, limit: int | None, model: str | None, threads: int, out: Path | None) -> None:
    """Code every document, and decode it again."""
    lm, documents = _ready(text, limit, model, threads)
    found = certify(lm, documents, progress=_progress)
    _write(out, CERTIFIED, found.plain.to_dict() | {"certified": found.to_dict()}, lm, documents)


@main.command()
@_options
def noise(text: Path, limit: int | None, model: str | None, threads: int, out: Path | None) -> None:
    """Perturb prompts and continuations."""
    lm, documents = _ready(text, limit, model, threads)
    found = measure_noise(ByteScorer(lm), documents, progress=_progress)
    _write(out, NOISE, found.to_dict(), lm, documents)


@main.command()
@_options
@click.option("--cute", type=click.Path(exists=True, path_type=Path), required=True, help="CUTE's folder of TASK.tsv.")
@click.option("--rows", default=100, show_default=True, help="Questions of each task.")
def probe(
    text: Path, limit: int | None, model: str | None, threads: int, out: Path | None, cute: Path, rows: int
) -> None:
    """Ask about characters."""
    lm, documents = _ready(text, limit, model, threads)
    tasks = cute_rows(cute, count=rows) + word_rows(documents, count=rows)
    found = probe_model(ByteScorer(lm), tasks, progress=_progress)
    _write(out, PROBE, found.to_dict(), lm, documents)


if __name__ == "__main__":
    main()
