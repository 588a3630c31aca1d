"""Where patches should end: rules, mean lengths and sizes of the entropy model, at equal training FLOPs.

    python benchmarks/choosing_patches.py --train data/tiny-train --dev data/tiny-dev --work runs/patches \
        --out benchmarks/records/choosing-patches.json

Every arm trains the bundled shape from the same new weights, as the recipe does, until it has spent the FLOPs that so
many megabytes cost at 4.4 bytes per patch: longer patches read more text. Entropies are stored, and count for nothing.
Figures are of the same held-out documents of DEV. Stopped, the same command goes on.
"""

from dataclasses import dataclass, field
from typing import Any

import click
import torch
from arms import FASTER_GLOBAL, WINDOW, Arm, Place, Setting, arm_options, new_model, train
from record import write_record

from blt.api import ByteLM
from blt.data import Shards
from blt.entropy import EntropyConfig, EntropyModel
from blt.model import preset
from blt.model.cost import cost_of, cost_of_entropy_model
from blt.patching import EntropyRule, SpaceRule, StaticRule, patch
from blt.patching.calibration import mean_patch_bytes
from blt.training import load_recipe, run_recipe

CLAIM = "At equal training FLOPs, which mean patch length, rule and entropy model give the lowest bits per byte"
MODEL, MEAN = "tiny", 4.4
ENTROPY_RECIPE = """
out = "unset"

[data]
train = "unset"
validation = "unset"
validation_documents = 120

[entropy.model]
dim = 32
num_layers = 1
num_heads = 1
window = 16

[entropy.loop]
num_steps = 700
batch_size = 16
sequence_length = 512
validate_every = 700
optimizer = { type = "muon", learning_rate = 0.02, adamw = { learning_rate = 3e-3, weight_decay = 0.0 } }
schedule = { type = "wsd", warmup_steps = 20, decay_fraction = 0.5 }

[blt.model]
preset = "tiny"

[blt.loop]
num_steps = 1
"""


@dataclass(frozen=True, kw_only=True)
class Patching:
    """One way to patch."""

    rule: dict[str, str] = field(default_factory=lambda: {"type": "entropy", "threshold": "1.0"})
    mean: float | None = MEAN
    """Bytes per patch to calibrate for, or None for a rule that has its own."""
    entropy: dict[str, str] | None = None
    """Shape of the entropy model; None: that of the model which gives the patches."""


ARMS = {
    "entropy, 3 bytes": Patching(mean=3.0),
    "entropy, 4.4 bytes": Patching(),
    "entropy, 6 bytes": Patching(mean=6.0),
    "entropy, 8 bytes": Patching(mean=8.0),
    "rise of entropy, 4.4 bytes": Patching(rule={"type": "entropy-rise", "threshold": "1.0"}),
    "spaces": Patching(rule={"type": "space"}, mean=None),
    "every 4 bytes": Patching(rule={"type": "static", "length": "4"}, mean=None),
    "small entropy model, 4.4 bytes": Patching(
        entropy={"dim": "32", "num_layers": "1", "num_heads": "1", "window": "16"}
    ),
    "large entropy model, 4.4 bytes": Patching(
        entropy={"dim": "256", "num_layers": "2", "num_heads": "4", "window": "128"}
    ),
}


def folder_of(name: str) -> str:
    """Return the part of an arm's name that tells its entropy model, for a folder."""
    return name.split(",")[0].replace(" ", "-")


def entropy_model(name: str, shape: dict[str, str], place: Place) -> EntropyModel:
    """Train one, as the bundled one was trained."""
    recipe, out = place.work / "entropy.toml", place.work / f"entropy-model-of-{folder_of(name)}"
    recipe.write_text(ENTROPY_RECIPE, encoding="utf-8")
    overrides = {"out": str(out), "device": "cpu", "data.train": place.train, "data.validation": place.dev}
    run_recipe(
        load_recipe(recipe, overrides=overrides | {f"entropy.model.{key}": value for key, value in shape.items()})
    )
    found = ByteLM.from_pretrained(str(out / "model")).entropy_model
    assert found is not None, "the recipe trains one"
    return found


def own_mean(patching: Patching, dev: str) -> float:
    """Measure the mean patch of a rule that needs no entropies."""
    rule = SpaceRule() if patching.rule["type"] == "space" else StaticRule(length=int(patching.rule["length"]))
    shards = Shards.open(dev)
    ids = torch.from_numpy(shards.ids(0, min(200_000, shards.num_ids)))[None]
    return mean_patch_bytes(patch(ids, rule), ids)


@click.command()
@click.option("--arm", "chosen", type=click.Choice(list(ARMS)), multiple=True, help="Train these only; no record.")
@click.option("--megabytes", default=2.0, show_default=True, help="Bytes that 4.4 bytes per patch see.")
@arm_options
def main(setting: Setting, *, chosen: tuple[str, ...], megabytes: float) -> None:
    """Train the arms, and write the record."""
    budget = megabytes * 1e6 * flops(MEAN)
    results: dict[str, Any] = {"model": MODEL, "tera_flops": budget / 1e12, "arms": {}}
    for name in chosen or ARMS:
        patching = ARMS[name]
        place = setting.place(f"new-{'bundled' if patching.entropy is None else folder_of(name)}")
        is_there = place.start.is_dir()
        donor = ByteLM.from_pretrained(str(place.start)) if is_there else setting.donor()
        if not is_there:
            if patching.entropy is not None:
                model = entropy_model(name, patching.entropy, place)
                donor = ByteLM(donor.blt, patch_rule=EntropyRule(threshold=1.0), entropy_model=model)
            new_model(donor, model=MODEL).save_pretrained(place.start)
        mean = patching.mean or own_mean(patching, setting.dev)
        options = FASTER_GLOBAL | {f"patching.rule.{key}": value for key, value in patching.rule.items()}
        if patching.mean is not None:
            options |= {"patching.mean_patch_bytes": str(patching.mean)}
        arm = Arm(options=options)
        found = train(name, arm, place, steps=arm.steps(budget / flops(mean) / 1e6))
        assert donor.entropy_model is not None, "every model here has one"
        shape: EntropyConfig = donor.entropy_model.config
        cost = cost_of_entropy_model(shape, context_bytes=WINDOW).flops if patching.mean else 0.0
        results["arms"][name] = found | {"mean_patch_bytes": mean, "entropy_flops_per_byte": cost}
    if not chosen:
        write_record(setting.out, claim=CLAIM, device="cpu", results=results)


def flops(mean: float) -> float:
    """Return a byte's training FLOPs, at that many bytes per patch."""
    return cost_of(preset(MODEL), mean_patch_bytes=mean, context_bytes=WINDOW).training_flops


if __name__ == "__main__":
    main()
