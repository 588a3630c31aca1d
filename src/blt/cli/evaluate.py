"""`blt evaluate`: bits per byte of a model on a file of documents."""

import itertools
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from blt.api import ByteLM
from blt.cli.options import (
    data_option,
    device_option,
    dtype_option,
    json_option,
    limit_option,
    model_option,
    refuse_unread,
    seed_option,
)
from blt.cli.reading_options import format_option, skip_bad_option, text_field_option
from blt.cli.types import Count
from blt.configuration import check
from blt.data import Format, Shards, read_documents
from blt.evaluation import (
    CONDITIONS,
    PROTOCOLS,
    Certification,
    Evaluation,
    Noise,
    Protocol,
    ScriptFigures,
    certify,
    measure_noise,
)
from blt.evaluation import evaluate as evaluate_lm
from blt.evaluation.bootstrap import Interval
from blt.evaluation.continuations import ByteScorer
from blt.evaluation.evaluate import Progress as Report
from blt.evaluation.noise import CHANCE, PAIRS
from blt.evaluation.scripts import by_script as divide
from blt.lm import fingerprint


@click.command()
@data_option
@model_option
@click.option(
    "--protocol",
    type=click.Choice([*PROTOCOLS, "both"]),
    default="documents",
    show_default=True,
    help="Each document alone and whole, or cuts of 512 ids as a small training run sees them.",
)
@limit_option
@format_option
@text_field_option
@skip_bad_option
@click.option("--bootstrap", type=Count(0, 10**6), default=1000, show_default=True, help="Draws; 0: no interval.")
@seed_option("Seed of the bootstrap, and of the noise.")
@device_option
@dtype_option("float32", "bfloat16")
@click.option(
    "--certified",
    is_flag=True,
    help="Also code every document and decode it again; if other bytes come back, there is no figure.",
)
@click.option(
    "--noise",
    is_flag=True,
    help="Instead: bits per byte of continuations, and accuracy on minimal pairs, under five perturbations of the "
    "prompt, the continuation or both.",
)
@click.option(
    "--by-script",
    is_flag=True,
    help="Also bits per byte and FLOPs per character by script: the one that most letters of a document have.",
)
@click.option("--units", is_flag=True, help="With --json: also the bits and bytes of every document, or window.")
@json_option
@click.pass_context
def evaluate(
    context: click.Context,
    /,
    data: str,
    model: str | None,
    protocol: str,
    limit: int | None,
    format: Format,
    text_field: str | None,
    skip_bad: bool,
    bootstrap: int,
    seed: int,
    device: str,
    dtype: str,
    certified: bool,
    noise: bool,
    by_script: bool,
    units: bool,
    as_json: bool,
) -> None:
    """Measure bits per byte on a file.

    The bits of every byte and of every document's end count, and the bytes of the text alone divide them. With
    --protocol both, the JSON object has the figures of `documents`, and under the key "windows" those of `windows`;
    with --certified, under the key "certified", the figures that were coded and decoded. --noise cuts every document
    into a prompt and a continuation, and shows what a model loses where either is perturbed. --by-script divides the
    figures by writing system, in JSON under the key "by_script".
    """
    read = read_documents(data, format=format, text_field=text_field, skip_bad=skip_bad)
    refuse_unread(context, "units", unless=as_json, reason="needs --json, which shows them")
    check(
        not certified or protocol == "documents", f"--certified: codes whole documents; leave --protocol {protocol} out"
    )
    check(not (certified and noise), "--certified and --noise: one at a time")
    check(not (by_script and (certified or noise)), "--by-script: only of the plain figure")
    check(not by_script or protocol == "documents", f"--by-script: of whole documents; leave --protocol {protocol} out")
    refuse_unread(context, "protocol", "units", unless=not noise, reason="--noise has no use for it")
    refuse_unread(context, "seed", unless=bootstrap > 0 or noise, reason="nothing is drawn with --bootstrap 0")
    documents = list(itertools.islice(read, limit))
    lm = ByteLM.from_pretrained(model, dtype=dtype, device=device)
    if noise:
        with progress_bar("scoring noise") as report:
            found = measure_noise(ByteScorer(lm), documents, seed=seed, bootstrap=bootstrap, progress=report)
        click.echo(_noise_json(lm, documents, found) if as_json else _noise_table(found))
        return
    if certified:
        with progress_bar("coding and decoding") as report:
            certification = certify(lm, documents, seed=seed, bootstrap=bootstrap, progress=report)
        click.echo(_certified_json(certification, units=units) if as_json else _certified_table(certification))
        return
    evaluations = []
    chosen: tuple[Protocol, ...] = PROTOCOLS if protocol == "both" else (protocol,)  # type: ignore[assignment]
    for one in chosen:
        with progress_bar(f"scoring {one}") as report:
            evaluations.append(
                evaluate_lm(lm, documents, protocol=one, seed=seed, bootstrap=bootstrap, progress=report)
            )
    scripts = divide(lm, documents, evaluations[0], seed=seed, bootstrap=bootstrap) if by_script else None
    if as_json:
        divided = {} if scripts is None else {"by_script": [script.to_dict() for script in scripts]}
        click.echo(json.dumps(_joined(evaluations, units=units) | divided))
    else:
        tables = [_table(evaluation) for evaluation in evaluations]
        click.echo("\n\n".join(tables if scripts is None else [*tables, _script_table(scripts)]))


@contextmanager
def progress_bar(description: str) -> Iterator[Report]:
    """Show how much of something is done, on standard error, if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:  # a bar that is only disabled ends with an empty line in older versions of rich
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(description, total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield report


def _joined(evaluations: list[Evaluation], *, units: bool) -> dict[str, Any]:
    first, *others = evaluations
    return first.to_dict(units=units) | {other.protocol: other.to_dict(units=units) for other in others}


def _certified_json(certification: Certification, *, units: bool) -> str:
    values = certification.plain.to_dict(units=units) | {"certified": certification.to_dict(units=units)}
    return json.dumps(values)


def _certified_table(certification: Certification) -> str:
    relative = certification.difference / certification.plain.bits_per_byte
    rows = {
        "bits per byte": _figure(certification),
        "difference": f"{certification.difference:+.4f} ({relative:+.2%}) to the plain figure",
        "frequencies": f"{certification.frequency_bits_per_byte:.4f} bits per byte, without what the coder adds",
        "coded": f"{certification.num_coded_bytes:,} bytes in {certification.num_streams} streams, by the "
        f"{certification.kernels}",
        "time": f"{certification.seconds_encoding:.1f} s to code, {certification.seconds_decoding:.1f} s to decode",
    }
    conditions = "\n".join(f"  {name}: {how}" for name, how in CONDITIONS.items())
    plain = _table(certification.plain)
    return f"{plain}\n\ncertified: coded, and decoded to the same bytes\n{_lines(rows)}\nconditions met\n{conditions}"


def _noise_json(lm: ByteLM, documents: list[bytes], found: Noise) -> str:
    names = {"model_fingerprint": fingerprint(lm), "data_checksum": Shards.from_documents(documents).checksum}
    return json.dumps(found.to_dict() | names)


def _noise_table(found: Noise) -> str:
    """Return one line for each condition; a cell is a figure and its interval."""
    named = [("", "clean", found.clean)]
    named += [(one.perturbation or "", one.place or "", one) for one in found.noised]
    named += [("average", "", found.average)]
    heads = ["noise", "on", "bits per byte", "per clean byte", "other: accuracy, lost", "swapped: accuracy, lost"]
    lines = [
        [
            name,
            place,
            cell(one.bits_per_byte),
            f"{one.bits_per_clean_byte.value:.3f}",
            *(cell(one.accuracy[pair]) if one is found.clean else cell(one.lost[pair], signed=True) for pair in PAIRS),
        ]
        for name, place, one in named
    ]
    about = (
        f"{found.num_documents:,} documents, {found.num_bytes:,} bytes of continuations, {found.num_left_out:,} "
        f"documents left out; chance {CHANCE:.0%}; {found.seconds:.1f} s"
    )
    return "\n".join([*_columns(heads, lines), about])


def _script_table(scripts: list[ScriptFigures]) -> str:
    """Return one line for each script."""
    heads = ["script", "documents", "bytes", "bits per byte", "bits per character", "bytes per character"]
    heads += ["bytes per patch", "MFLOPs per character"]
    lines = [
        [
            one.script,
            f"{one.num_documents:,}",
            f"{one.num_bytes:,}",
            cell(one.bits_per_byte),
            f"{one.bits_per_character:.3f}",
            f"{one.bytes_per_character:.2f}",
            f"{one.mean_patch_bytes:.2f}",
            f"{one.flops_per_character / 1e6:.2f}",
        ]
        for one in scripts
    ]
    return "\n".join(_columns(heads, lines))


def _columns(heads: list[str], lines: list[list[str]]) -> list[str]:
    """Return the lines of a table whose cells stand below their heads."""
    table = [heads, *lines]
    widths = [max(len(line[column]) for line in table) for column in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def cell(figure: Interval, *, signed: bool = False) -> str:
    """Write a figure with its interval."""
    form = "+.3f" if signed else ".3f"
    interval = "" if math.isnan(figure.low) else f" ({figure.low:{form}} to {figure.high:{form}})"
    return f"{figure.value:{form}}{interval}"


def _figure(found: Evaluation | Certification) -> str:
    interval = f"   95% interval {found.interval_low:.4f} to {found.interval_high:.4f}"
    return f"{found.bits_per_byte:.4f}" + ("" if math.isnan(found.interval_low) else interval)


def _table(evaluation: Evaluation) -> str:
    rows = {
        "protocol": evaluation.protocol,
        "bits per byte": _figure(evaluation),
        "text": f"{evaluation.num_bytes:,} bytes in {evaluation.num_documents:,} documents, "
        f"sha256 {evaluation.data_checksum[:16]}",
        "mean patch": f"{evaluation.mean_patch_bytes:.3f} bytes, by {evaluation.patch_rule}",
        "model": evaluation.model_fingerprint,
        "time": f"{evaluation.seconds:.1f} s, {evaluation.bytes_per_second:,.0f} bytes/s",
    }
    return _lines(rows)


def _lines(rows: dict[str, str]) -> str:
    return "\n".join(f"{name:<14} {value}" for name, value in rows.items())
