"""Where whole runs of one shape came to, side by side: what is best over a little text need not be over much.

    python benchmarks/whole_runs.py "NAME=runs/tiny" "OTHER NAME=runs/tiny-other" --model tiny \
        --out benchmarks/records/whole-runs.json

Reads the folders of finished runs by recipes, and trains nothing. Figures are of each run's own held-out documents, as
its validations measured them; runs of other documents are refused.
"""

from pathlib import Path
from typing import Any

import click
from arms import course_of
from record import write_record

from blt.checkpoint import load_json
from blt.configuration import from_dict, to_dict
from blt.training import Recipe

CLAIM = "Bits per byte along whole runs of one shape, by their rates, steps and schedules"


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="NAME=FOLDER...")
@click.option("--model", required=True, help="Preset of all of them.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(runs: tuple[str, ...], model: str, out: Path) -> None:
    """Write the record."""
    results: dict[str, Any] = {}
    texts: set[str] = set()
    for run in runs:
        name, _, folder = run.rpartition("=")
        results[name] = described(Path(folder))
        texts.add(str(load_json(Path(folder) / "data.json")))
    if len(texts) > 1:
        raise click.UsageError("the runs are not of the same text")
    write_record(out, claim=CLAIM, device="cpu", results={"model": model, "runs": results})


def described(folder: Path) -> dict[str, Any]:
    """Tell a run's course, and by what it was trained."""
    recipe = to_dict(from_dict(Recipe, load_json(folder / "recipe.json")))["blt"]
    loop, parts = recipe["loop"], recipe["parts"]
    found = {name: loop[name] for name in ("optimizer", "schedule", "num_steps")}
    found |= {"rows": loop["batch_size"], "window": loop["sequence_length"]}  # as earlier records call them
    found["ngram_dropout"] = recipe["ngram_dropout"]
    found["learning_rate_factors"] = {part: options["learning_rate_factor"] for part, options in parts.items()}
    return found | course_of(folder)


if __name__ == "__main__":
    main()
