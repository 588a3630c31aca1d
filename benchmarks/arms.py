"""What the benchmarks that train share: a small BLT, the recipe so far, and arms that change it.

Every arm of a benchmark trains one BLT on the same windows in the same order, with the patches of one model, and is
measured on the same held-out documents. Stopped, the same command goes on.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import torch
from record import write_record
from torch import nn

from blt.api import ByteLM
from blt.model import BLT, BLTConfig, preset
from blt.nn import LocalConfig, TransformerConfig
from blt.training import load_recipe, run_recipe
from blt.training.checkpoints import Checkpoints
from blt.training.monitor import read_metrics

RECIPE = """
out = "unset"
start_from = "unset"

[data]
train = "unset"
validation = "unset"
validation_documents = 120

[blt.loop]
num_steps = 1
batch_size = 3
sequence_length = 2048
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
MUON_SCHEDULE = {"type": "wsd", "warmup_steps": "20"}
FASTER_GLOBAL = {"blt.parts.global_transformer.learning_rate_factor": "2.0"}
WINDOW, ROWS = 2048, 3
PLAIN_SCALE = 10.0
"""Of n-gram tables and of what is added to residual streams, in plain first weights, relative to what `blt` draws."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train; by default as the recipe does."""

    optimizer: Mapping[str, str] = field(default_factory=lambda: MUON)
    schedule: Mapping[str, str] = field(default_factory=lambda: MUON_SCHEDULE)
    options: Mapping[str, str] = field(default_factory=lambda: FASTER_GLOBAL)
    """Other fields of the recipe, by their paths."""
    rows: int = ROWS
    window: int = WINDOW
    seed: int = 0
    scale_of_first_weights: float = 1.0
    """As `PLAIN_SCALE` has it."""
    within: Callable[[int], AbstractContextManager[Any]] = lambda _steps: nullcontext()
    """Number of steps → what it is trained within."""

    def steps(self, megabytes: float) -> int:
        """Return the number of steps that see so much."""
        return int(megabytes * 1e6 / (self.rows * self.window))


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where arms begin, read and write."""

    start: Path
    """Model that they start from."""
    train: str
    dev: str
    work: Path


def new_model(donor: ByteLM, *, model: str = "small", scale: float = 1.0, seed: int = 0) -> ByteLM:
    """Return a BLT with another model's patches and new weights; n-gram tables, and what layers add, are scaled."""
    torch.manual_seed(seed)
    lm = ByteLM(BLT(shape_of(model)), patch_rule=donor.patch_rule, entropy_model=donor.entropy_model)
    with torch.no_grad():
        tables = lm.blt.hash_embedding.ngrams
        assert tables is not None, "the benchmarks' shapes have n-grams"
        tables.weight.mul_(scale)
        for name, part in lm.blt.named_modules():
            if isinstance(part, nn.Linear) and name.endswith((".attention.output", ".feed_forward.down")):
                part.weight.mul_(scale)
    return lm


def shape_of(model: str) -> BLTConfig:
    """Return a preset's shape, or that of `small`."""
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


def train(name: str, arm: Arm, place: Place, *, steps: int) -> dict[str, Any]:
    """Train one arm, and tell its course."""
    recipe, out = place.work / f"{name.replace(' ', '-')}.toml", place.work / name.replace(" ", "-")
    recipe.write_text(RECIPE, encoding="utf-8")
    overrides = {
        "out": str(out),
        "start_from": str(place.start),
        "device": "cpu",
        "seed": str(arm.seed),
        "data.train": place.train,
        "data.validation": place.dev,
        "blt.loop.num_steps": str(steps),
        "blt.loop.validate_every": str(max(1, steps // 4)),
        "blt.loop.batch_size": str(arm.rows),
        "blt.loop.sequence_length": str(arm.window),
    }
    overrides |= {f"blt.loop.optimizer.{key}": value for key, value in arm.optimizer.items()}
    overrides |= {f"blt.loop.schedule.{key}": value for key, value in arm.schedule.items()}
    assert not overrides.keys() & arm.options.keys(), f"{name}: an option that another field of the arm sets"
    with arm.within(steps):
        run_recipe(load_recipe(recipe, overrides=overrides | dict(arm.options)))
    found = {
        "optimizer": arm.optimizer,
        "schedule": arm.schedule,
        "options": arm.options,
        "steps": steps,
        "rows": arm.rows,
        "window": arm.window,
        "seed": arm.seed,
    } | course_of(out)
    print(name, found["bytes_seen"], found["dev_bits_per_byte"], flush=True)
    return found


def course_of(run: Path) -> dict[str, Any]:
    """Tell what a finished run saw, how long it took, and what it came to from validation to validation."""
    rows = read_metrics(run / "blt" / "metrics.jsonl")
    course = [row for row in rows if "validation_bits_per_byte" in row]
    progress = Checkpoints(run / "blt" / "checkpoints").progress()
    return {
        "bytes_seen": progress.num_bytes,
        "seconds": progress.seconds,
        "dev_bits_per_byte": course[-1]["validation_bits_per_byte"],
        "course": course,
    }


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What every benchmark that trains arms is told."""

    train: str
    dev: str
    patches_of: str
    work: Path
    out: Path

    def donor(self) -> ByteLM:
        """Load the model that gives the patches."""
        return ByteLM.from_pretrained(self.patches_of)

    def place(self, start: str) -> Place:
        """Return the place of arms that begin with a model in a folder of this name."""
        return Place(start=self.work / start, train=self.train, dev=self.dev, work=self.work)


def arm_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that every benchmark which trains arms has; they reach the command as a `Setting`."""

    @functools.wraps(command)
    def told(*, train_folder: str, dev: str, patches_of: str, threads: int, work: Path, out: Path, **own: Any) -> None:
        torch.set_num_threads(threads)
        work.mkdir(parents=True, exist_ok=True)
        command(Setting(train=train_folder, dev=dev, patches_of=patches_of, work=work, out=out), **own)

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
        told = option(told)
    return told


def command_of(arms: Mapping[str, Arm], *, claim: str, megabytes: float) -> click.Command:
    """Return the command of a benchmark that trains the small model, arm by arm, and writes their record."""

    @click.command()
    @click.option("--arm", "chosen", type=click.Choice(list(arms)), multiple=True, help="Train these only; no record.")
    @click.option("--megabytes", default=megabytes, show_default=True, help="Bytes that each arm sees.")
    @arm_options
    def command(setting: Setting, *, chosen: Iterable[str], megabytes: float) -> None:
        """Train the arms, and write the record."""
        donor, results = setting.donor(), {}
        for name in chosen or arms:
            arm = arms[name]
            place = setting.place(f"new-{arm.seed}-{arm.scale_of_first_weights:g}")
            if not place.start.is_dir():
                new_model(donor, scale=arm.scale_of_first_weights, seed=arm.seed).save_pretrained(place.start)
            results[name] = train(name, arm, place, steps=arm.steps(megabytes))
        if not chosen:
            write_record(setting.out, claim=claim, device="cpu", results=results)

    return command
