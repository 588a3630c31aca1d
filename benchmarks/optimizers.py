"""Plain AdamW at its best learning rate against Muon, at equal bytes and with the same model.

    python benchmarks/optimizers.py --train data/tiny-train --dev data/tiny-dev --work runs/optimizers \
        --model tiny --out benchmarks/records/optimizers-tiny.json

Every arm trains one BLT, a small one or with `--model` a preset's shape, on the same windows in the same order, with
the patches of one model, and is measured on the same held-out documents of DEV. AdamW's learning rates are screened by
short runs; the best ones are then trained in full, as is Muon at rates found on `tiny`. AdamW begins with Muon's own
new weights, and in a second set of arms, unless `--no-plain` leaves it out, with plain ones: n-gram tables, and what
layers add, ten times as large. Stopped, the same command goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from record import write_record
from torch import nn

from blt.lm import ByteLM
from blt.model import BLT, BLTConfig, preset
from blt.nn import LocalConfig, TransformerConfig
from blt.training import load_recipe, run_recipe
from blt.training.checkpoints import Checkpoints
from blt.training.monitor import read_metrics

CLAIM = (
    "At equal bytes Muon reaches lower bits per byte than plain AdamW at its best learning rate, with the same model"
)
RECIPE = """
out = "unset"
start_from = "unset"

[data]
train = "unset"
validation = "unset"
validation_documents = 120

[blt.loop]
num_steps = 1
rows = 3
window = 2048
checkpoint_every = 200
"""
MUON = {
    "type": "muon",
    "learning_rate": "0.007",
    "momentum": "0.85",
    "weight_decay": "0.1",
    "adamw.learning_rate": "3.5e-3",
    "adamw.weight_decay": "0.0",
}
FASTER_GLOBAL = {"blt.parts.global_transformer.learning_rate_factor": "2.0"}
MUON_SCHEDULE = {"type": "wsd", "warmup_steps": "20"}
COSINE = {"type": "cosine", "warmup_steps": "50"}
WINDOW = 2048
ROWS = 3
PLAIN_SCALE = 10.0
"""Of n-gram tables and of what is added to residual streams, in plain first weights, relative to what `blt` draws."""


def new_model(donor: ByteLM, *, model: str = "small", seed: int = 0) -> ByteLM:
    """Give a BLT with new weights, and the patches of another model."""
    torch.manual_seed(seed)
    return ByteLM(BLT(shape_of(model)), patch_rule=donor.patch_rule, entropy_model=donor.entropy_model)


def save_new_model(donor: ByteLM, folder: Path, *, model: str = "small", scale: float = 1.0, seed: int = 0) -> None:
    """Write a model of new weights, of which n-gram tables and what layers add are scaled."""
    lm = new_model(donor, model=model, seed=seed)
    with torch.no_grad():
        tables = lm.blt.hash_embedding.ngrams
        assert tables is not None, "the benchmarks' shapes have n-grams"
        tables.weight.mul_(scale)
        for name, part in lm.blt.named_modules():
            if isinstance(part, nn.Linear) and name.endswith((".attention.output", ".feed_forward.down")):
                part.weight.mul_(scale)
    lm.save_pretrained(folder)


def shape_of(model: str) -> BLTConfig:
    """Give a preset's shape, or that of `small`."""
    if model != "small":
        return preset(model)
    local = LocalConfig(dim=128, num_layers=1, num_heads=2, window=64)
    return BLTConfig(
        local_encoder=local,
        global_transformer=TransformerConfig(dim=256, num_layers=3, num_heads=4),
        local_decoder=replace(local, num_layers=2),
        queries_per_patch=2,
        decoder_cross_attention="first",
    )


def adamw(rate: float) -> dict[str, str]:
    return {"type": "adamw", "learning_rate": str(rate), "weight_decay": "0.1"}


def train(
    name: str, optimizer: dict[str, str], schedule: dict[str, str], *, steps: int, paths: dict[str, str], work: Path
) -> dict[str, Any]:
    """Train one arm, and tell its course."""
    recipe = work / f"{name.replace(' ', '-')}.toml"
    work.mkdir(parents=True, exist_ok=True)
    recipe.write_text(RECIPE, encoding="utf-8")
    out = work / name.replace(" ", "-")
    overrides = paths | {"out": str(out), "blt.loop.num_steps": str(steps)}
    overrides |= {"blt.loop.validate_every": str(max(1, steps // 4))}
    overrides |= {f"blt.loop.optimizer.{key}": value for key, value in optimizer.items()}
    overrides |= {f"blt.loop.schedule.{key}": value for key, value in schedule.items()}
    run_recipe(load_recipe(recipe, overrides=overrides))
    rows = read_metrics(out / "blt" / "metrics.jsonl")
    course = [row for row in rows if "validation_bits_per_byte" in row]
    progress = Checkpoints(out / "blt" / "checkpoints").progress()
    found = {
        "optimizer": optimizer,
        "schedule": schedule,
        "steps": steps,
        "window": int(paths.get("blt.loop.window", WINDOW)),
        "bytes_seen": progress.num_bytes,
        "seconds": progress.seconds,
        "dev_bits_per_byte": course[-1]["validation_bits_per_byte"],
        "course": course,
    }
    print(name, found["bytes_seen"], found["dev_bits_per_byte"], flush=True)
    return found


@dataclass(frozen=True, kw_only=True)
class Length:
    """How much an arm sees, and in which steps."""

    megabytes: float
    rows: int

    @property
    def steps(self) -> int:
        """Their number."""
        return int(self.megabytes * 1e6 / (self.rows * WINDOW))


def best_adamw(
    name: str,
    rates: tuple[float, ...],
    finalists: int,
    *,
    short: Length,
    full: Length,
    paths: dict[str, str],
    work: Path,
    results: dict[str, Any],
) -> float:
    """Screen AdamW's rates by short runs, train the best in full, and give the best of these."""
    screened = {}
    for rate in rates:
        arm = f"screen {name} {rate}"
        inside = paths | {"blt.loop.rows": str(short.rows)}
        found = train(arm, adamw(rate), COSINE, steps=short.steps, paths=inside, work=work)
        results["screened"][arm], screened[rate] = found, found["dev_bits_per_byte"]
    finals = []
    for rate in sorted(screened, key=lambda rate: screened[rate])[:finalists]:
        arm = f"{name} {rate}"
        results["in full"][arm] = train(arm, adamw(rate), COSINE, steps=full.steps, paths=paths, work=work)
        finals.append(results["in full"][arm]["dev_bits_per_byte"])
    return float(min(finals))


def arm_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that every benchmark which trains arms has."""
    for option in (
        click.option("--out", type=click.Path(path_type=Path), required=True),
        click.option("--work", type=click.Path(path_type=Path), required=True, help="Where the runs go on."),
        click.option("--threads", default=1, show_default=True),
        click.option(
            "--patches-of", default="src/blt/bundled", show_default=True, help="Model that gives the patches."
        ),
        click.option("--dev", required=True, help="Likewise; its documents are held out."),
        click.option("--train", "train_folder", required=True, help="Folder written by `blt prepare`."),
    ):
        command = option(command)
    return command


@click.command()
@click.option("--rate", "rates", type=float, multiple=True, default=(1e-3, 3e-3, 1e-2), show_default=True)
@click.option("--megabytes", default=10.0, show_default=True, help="Bytes to see in full.")
@click.option("--screen-megabytes", default=2.5, show_default=True, help="Bytes to see in screening AdamW's rates.")
@click.option("--model", type=click.Choice(["small", "tiny", "tinystories-55m"]), default="small", show_default=True)
@click.option("--rows", default=ROWS, show_default=True, help="Windows of 2,048 bytes in each step.")
@click.option("--screen-rows", type=int, help="Likewise, in screening; unset: as many.")
@click.option("--plain/--no-plain", default=True, show_default=True, help="Train AdamW from plain first weights too.")
@click.option("--finalists", default=2, show_default=True, help="How many of AdamW's rates to train in full.")
@arm_options
def main(
    train_folder: str,
    dev: str,
    patches_of: str,
    model: str,
    rows: int,
    screen_rows: int | None,
    plain: bool,
    rates: tuple[float, ...],
    megabytes: float,
    screen_megabytes: float,
    finalists: int,
    threads: int,
    work: Path,
    out: Path,
) -> None:
    """Screen, train, and write the record."""
    torch.set_num_threads(threads)
    work.mkdir(parents=True, exist_ok=True)
    donor = ByteLM.from_pretrained(patches_of)
    starts = {"adamw": work / f"new-{model}"} | ({"plain adamw": work / f"plain-{model}"} if plain else {})
    for name, start in starts.items():
        if not start.is_dir():
            save_new_model(donor, start, model=model, scale=PLAIN_SCALE if name == "plain adamw" else 1.0)
    paths = {"start_from": str(starts["adamw"]), "data.train": train_folder, "data.validation": dev, "device": "cpu"}
    paths |= {"blt.loop.rows": str(rows)}
    short = Length(megabytes=screen_megabytes, rows=screen_rows or rows)
    full = Length(megabytes=megabytes, rows=rows)
    results: dict[str, Any] = {"recipe": RECIPE, "model": model, "rows": rows, "screen rows": short.rows}
    results |= {"screened": {}, "in full": {}, "bits_per_byte_below": {}}
    inside = paths | FASTER_GLOBAL
    results["in full"]["muon"] = train("muon", MUON, MUON_SCHEDULE, steps=full.steps, paths=inside, work=work)
    for name, start in starts.items():
        inside = paths | {"start_from": str(start)}
        best = best_adamw(name, rates, finalists, short=short, full=full, paths=inside, work=work, results=results)
        results["bits_per_byte_below"][name] = best - results["in full"]["muon"]["dev_bits_per_byte"]
    print("below by", results["bits_per_byte_below"])
    write_record(out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
