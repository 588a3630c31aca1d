"""How fast models decode, by rule, bytes per patch and size of the entropy model.

    python benchmarks/choosing_speed.py --out benchmarks/records/choosing-speed-cpu.json

The arms are those of `choosing_patches.py`, whose record has the bits per byte of each at equal training FLOPs. Models
have new weights, and thresholds for so many bytes per patch on the sample text, which is read byte by byte while bytes
are chosen. Each round measures every arm once; figures are medians over the rounds.
"""

import dataclasses
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import torch
from choosing_patches import ARMS, Patching
from record import ROOT, write_record

from blt.api import ByteLM
from blt.codec import encode
from blt.configuration import from_dict
from blt.entropy import EntropyConfig
from blt.generation.speed import TEXT, Limits, measure_decoding, measure_limits_of
from blt.lm import LMConfig
from blt.model import preset
from blt.patching import PatchRule, calibrate

CLAIM = "Speed of decoding by patch rule, bytes per patch and entropy model, beside the bits per byte of each"
SHAPES = {
    "tiny": EntropyConfig(dim=128, num_layers=2, num_heads=4, window=64),
    "tinystories-55m": EntropyConfig(dim=256, num_layers=2, num_heads=4, window=128),
}


def model_of(patching: Patching, shape: str) -> ByteLM:
    """Make a model with new weights that patches so."""
    torch.manual_seed(0)
    rule: PatchRule = from_dict(PatchRule, {name: _number(value) for name, value in patching.rule.items()})
    own = {} if patching.entropy is None else {name: int(value) for name, value in patching.entropy.items()}
    entropy = dataclasses.replace(SHAPES[shape], **own) if rule.needs_entropies else None
    lm = ByteLM.new(LMConfig(blt=preset(shape), entropy_model=entropy, patch_rule=rule)).eval()
    if patching.mean is not None:
        ids = encode(TEXT, bos=True, eos=True)
        entropies = lm.entropies(ids[None])
        assert entropies is not None
        lm.patch_rule = calibrate(rule, byte_ids=[ids], entropies=[entropies[0]], mean_patch_bytes=patching.mean)
    return lm


def _number(value: str) -> str | float | int:
    return value if value.isalpha() or "-" in value else float(value) if "." in value else int(value)


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--bytes", "num_bytes", default=256, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write a record there.")
def main(rounds: int, num_bytes: int, threads: int, out: Path | None) -> None:
    """Measure every arm in turn."""
    torch.set_num_threads(threads)
    trained = json.loads((ROOT / "benchmarks/records/choosing-patches.json").read_text())["results"]
    quality = dict(_find(trained))
    models = {(name, shape): model_of(patching, shape) for shape in SHAPES for name, patching in ARMS.items()}
    limits: dict[str, Limits] = {shape: measure_limits_of(models[next(iter(ARMS)), shape]) for shape in SHAPES}
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    patches: dict[str, float] = {}
    for _ in range(rounds):
        for (name, shape), lm in models.items():
            speed = measure_decoding(
                lm, limits=limits[shape], text=TEXT.encode(), num_bytes=num_bytes, batch=1, repeats=1
            )
            found[name, shape].append(speed.bytes_per_second)
            patches[name] = speed.mean_patch_bytes
    results: dict[str, Any] = {}
    for name in ARMS:
        results[name] = {"mean_patch_bytes": patches[name], "dev_bits_per_byte": quality.get(name)}
        results[name] |= {f"{shape}, bytes_per_second": statistics.median(found[name, shape]) for shape in SHAPES}
        click.echo(f"{name:<34}{results[name]}")
    if out is not None:
        write_record(out, claim=CLAIM, device="cpu", results=results)


def _find(values: Any) -> Any:
    """Find the arms' bits per byte, wherever they stand in a record."""
    for name, value in values.items():
        if isinstance(value, dict):
            if "dev_bits_per_byte" in value:
                yield name, value["dev_bits_per_byte"]
            yield from _find(value)


if __name__ == "__main__":
    main()
