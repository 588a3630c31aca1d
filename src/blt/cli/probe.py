"""`blt probe`: what a model knows of the characters in words, and of the words in sentences."""

import json
from pathlib import Path

import click

from blt.api import ByteLM
from blt.checkpoint import write_file
from blt.cli.console import progress_bar
from blt.cli.options import (
    device_option,
    dtype_option,
    force_option,
    json_option,
    model_option,
    refuse_unread,
    seed_option,
)
from blt.cli.reading_options import format_option, skip_bad_option, text_field_option
from blt.cli.tables import cell, in_columns
from blt.cli.types import Count, Name
from blt.configuration import check
from blt.data import Format, read_documents
from blt.evaluation import Probe, cute_rows, word_rows
from blt.evaluation import probe as probe_model
from blt.evaluation.continuations import ByteScorer
from blt.evaluation.probe import MAX_SHOTS
from blt.evaluation.probe_tasks import CUTE, TASKS
from blt.lm import fingerprint


@click.command()
@click.option(
    "--data", type=Name(), metavar="FILE", help="Make tasks of the words of this text; as blt evaluate reads it."
)
@click.option("--cute", type=Name(), metavar="FOLDER", help="Ask CUTE's 14 tasks, whose files TASK.tsv lie there.")
@click.option("--task", "names", type=click.Choice(list(TASKS)), multiple=True, help="Only this one; may be repeated.")
@click.option("--rows", type=Count(), default=100, show_default=True, help="Questions of each task, at most.")
@click.option(
    "--shots", type=Count(0, MAX_SHOTS), default=MAX_SHOTS, show_default=True, help="Answered questions before each."
)
@model_option
@format_option
@text_field_option
@skip_bad_option
@click.option("--bootstrap", type=Count(0, 10**6), default=1000, show_default=True, help="Draws; 0: no interval.")
@seed_option("Seed of rows, wrong answers and the bootstrap.")
@device_option
@dtype_option("float32", "bfloat16")
@click.option("--out", type=Name(), metavar="FILE", help="Also write the JSON object there.")
@force_option
@json_option
@click.pass_context
def probe(
    context: click.Context,
    /,
    data: str | None,
    cute: str | None,
    names: tuple[str, ...],
    rows: int,
    shots: int,
    model: str | None,
    format: Format,
    text_field: str | None,
    skip_bad: bool,
    bootstrap: int,
    seed: int,
    device: str,
    dtype: str,
    out: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Ask a model about the characters in words.

    Every question is asked twice: to choose the answer among wrong ones, by log-likelihood and by mutual information
    with the question, and to write it. Tasks come from CUTE, from the words of a text (spell, spell backwards,
    contains, insert, delete, substitute, swap), or both.
    """
    check(data is not None or cute is not None, "--data or --cute: give a text, a folder of CUTE, or both")
    refuse_unread(context, "format", "text_field", "skip_bad", unless=data is not None, reason="of a text; see --data")
    refuse_unread(context, "force", unless=out is not None, reason="of the file that --out names")
    check(
        out is None or force or not Path(out).exists(), f"{out}: is there; give another name, or --force to replace it"
    )
    of_cute = [name for name in CUTE if not names or name in names]
    tasks = [] if cute is None else cute_rows(Path(cute), count=rows, num_shots=shots, seed=seed, tasks=of_cute)
    if data is not None:
        documents = read_documents(data, format=format, text_field=text_field, skip_bad=skip_bad)
        tasks += word_rows(documents, count=rows, num_shots=shots, seed=seed)
    for name in names:
        made_by = "made of the words of a text; give --data" if cute is not None else "one of CUTE's alone; give --cute"
        check(any(task.task == name for task in tasks), f"--task: {name}: {made_by}")
    tasks = [task for task in tasks if not names or task.task in names]
    lm = ByteLM.from_pretrained(model, dtype=dtype, device=device)
    with progress_bar("asking") as report:
        found = probe_model(ByteScorer(lm), tasks, seed=seed, bootstrap=bootstrap, progress=report)
    values = json.dumps(found.to_dict() | {"model_fingerprint": fingerprint(lm)})
    if out is not None:
        write_file(Path(out), f"{values}\n".encode())
    click.echo(values if as_json else _table(found))


def _table(found: Probe) -> str:
    heads = [
        "from",
        "task",
        "questions",
        "chosen right",
        "by mutual information",
        "chance",
        "written right",
        "most frequent",
    ]
    lines = [
        [
            one.source, one.task, f"{one.num_rows:,}", cell(one.choice), cell(one.mutual), f"{one.chance:.3f}",
            cell(one.exact_match), f"{one.most_frequent:.3f}",
        ]
        for one in [*found.tasks, *found.averages.values()]
    ]  # fmt: skip
    about = f"{found.num_shots} answered questions before each; {found.seconds:.1f} s"
    return "\n".join([*in_columns(heads, lines), about])
