"""`blt evaluate`: bits per byte of a model on a file of documents."""

import itertools
import json
import math
from typing import Any, cast

import click

from blt.api import ByteLM
from blt.cli.console import progress_bar
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
from blt.cli.tables import cell, in_columns
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
from blt.evaluation.continuations import ByteScorer
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
    draws = {"seed": seed, "bootstrap": bootstrap}
    if noise:
        click.echo(_noise(lm, documents, draws, as_json=as_json))
    elif certified:
        click.echo(_certified(lm, documents, draws, units=units, as_json=as_json))
    else:
        chosen = PROTOCOLS if protocol == "both" else (cast(Protocol, protocol),)
        click.echo(_plain(lm, documents, chosen, draws, by_script=by_script, units=units, as_json=as_json))


def _noise(lm: ByteLM, documents: list[bytes], draws: dict[str, int], *, as_json: bool) -> str:
    with progress_bar("scoring noise") as report:
        found = measure_noise(ByteScorer(lm), documents, **draws, progress=report)
    if not as_json:
        return _noise_table(found)
    names = {"model_fingerprint": fingerprint(lm), "data_checksum": Shards.from_documents(documents).checksum}
    return json.dumps(found.to_dict() | names)


def _certified(lm: ByteLM, documents: list[bytes], draws: dict[str, int], *, units: bool, as_json: bool) -> str:
    with progress_bar("coding and decoding") as report:
        found = certify(lm, documents, **draws, progress=report)
    if not as_json:
        return _certified_table(found)
    return json.dumps(found.plain.to_dict(units=units) | {"certified": found.to_dict(units=units)})


def _plain(
    lm: ByteLM,
    documents: list[bytes],
    protocols: tuple[Protocol, ...],
    draws: dict[str, int],
    *,
    by_script: bool,
    units: bool,
    as_json: bool,
) -> str:
    evaluations = []
    for one in protocols:
        with progress_bar(f"scoring {one}") as report:
            evaluations.append(evaluate_lm(lm, documents, protocol=one, **draws, progress=report))
    scripts = divide(lm, documents, evaluations[0], **draws) if by_script else None
    if as_json:
        divided = {} if scripts is None else {"by_script": [script.to_dict() for script in scripts]}
        return json.dumps(_joined(evaluations, units=units) | divided)
    tables = [_table(evaluation) for evaluation in evaluations]
    return "\n\n".join(tables if scripts is None else [*tables, _script_table(scripts)])


def _joined(evaluations: list[Evaluation], *, units: bool) -> dict[str, Any]:
    first, *others = evaluations
    return first.to_dict(units=units) | {other.protocol: other.to_dict(units=units) for other in others}


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
    return "\n".join([*in_columns(heads, lines), about])


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
    return "\n".join(in_columns(heads, lines))


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
