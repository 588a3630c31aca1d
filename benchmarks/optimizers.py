"""Plain AdamW at its best learning rate against Muon, at equal bytes and with the same model.

    python benchmarks/optimizers.py --train data/tiny-train --dev data/tiny-dev --work runs/optimizers \
        --model tiny --out benchmarks/records/optimizers-tiny.json

Every arm trains one BLT, a small one or with `--model` a preset's shape, on the same windows in the same order, with
the patches of one model, and is measured on the same held-out documents of DEV. AdamW's learning rates are screened by
short runs; the best ones are then trained in full, as is Muon at rates found on `tiny`. AdamW begins with Muon's own
new weights, and in a second set of arms, unless `--no-plain` leaves it out, with plain ones: n-gram tables, and what
layers add, ten times as large. Stopped, the same command goes on.
"""

from typing import Any

import click
from arms import PLAIN_SCALE, RECIPE, ROWS, Arm, Setting, arm_options, new_model, train
from record import write_record

CLAIM = (
    "At equal bytes Muon reaches lower bits per byte than plain AdamW at its best learning rate, with the same model"
)
COSINE = {"type": "cosine", "warmup_steps": "50"}


def adamw(rate: float, *, rows: int) -> Arm:
    """Return the arm of a rate: AdamW alone, as fast in all parts."""
    optimizer = {"type": "adamw", "learning_rate": str(rate), "weight_decay": "0.1"}
    return Arm(optimizer=optimizer, schedule=COSINE, options={}, rows=rows)


@click.command()
@click.option("--rate", "rates", type=float, multiple=True, default=(1e-3, 3e-3, 1e-2), show_default=True)
@click.option("--megabytes", default=10.0, show_default=True, help="Bytes to see in full.")
@click.option("--screen-megabytes", default=2.5, show_default=True, help="Bytes to see in screening AdamW's rates.")
@click.option("--model", type=click.Choice(["small", "tiny", "tinystories-55m"]), default="small", show_default=True)
@click.option("--rows", default=ROWS, show_default=True, help="Windows of 2,048 bytes in each step.")
@click.option("--screen-rows", type=int, help="Likewise, in screening; None means as many.")
@click.option("--plain/--no-plain", default=True, show_default=True, help="Train AdamW from plain first weights too.")
@click.option("--finalists", default=2, show_default=True, help="How many of AdamW's rates to train in full.")
@arm_options
def main(
    setting: Setting,
    *,
    model: str,
    rows: int,
    screen_rows: int | None,
    plain: bool,
    rates: tuple[float, ...],
    megabytes: float,
    screen_megabytes: float,
    finalists: int,
) -> None:
    """Screen, train, and write the record."""
    donor = setting.donor()
    results: dict[str, Any] = {"recipe": RECIPE, "model": model, "rows": rows, "screen rows": screen_rows or rows}
    results |= {"screened": {}, "in full": {}, "bits_per_byte_below": {}}
    starts = {"adamw": (f"new-{model}", 1.0)} | ({"plain adamw": (f"plain-{model}", PLAIN_SCALE)} if plain else {})
    for name, (folder, scale) in starts.items():
        place = setting.place(folder)
        if not place.start.is_dir():
            new_model(donor, model=model, scale=scale).save_pretrained(place.start)
        if name == "adamw":
            muon = Arm(rows=rows)
            results["in full"]["muon"] = train("muon", muon, place, steps=muon.steps(megabytes))
        screened = {}
        for rate in rates:
            arm = adamw(rate, rows=screen_rows or rows)
            found = train(f"screen {name} {rate}", arm, place, steps=arm.steps(screen_megabytes))
            results["screened"][f"screen {name} {rate}"], screened[rate] = found, found["dev_bits_per_byte"]
        finals = []
        for rate in sorted(screened, key=lambda rate: screened[rate])[:finalists]:
            arm = adamw(rate, rows=rows)
            found = train(f"{name} {rate}", arm, place, steps=arm.steps(megabytes))
            results["in full"][f"{name} {rate}"] = found
            finals.append(found["dev_bits_per_byte"])
        results["bits_per_byte_below"][name] = min(finals) - results["in full"]["muon"]["dev_bits_per_byte"]
    print("below by", results["bits_per_byte_below"])
    write_record(setting.out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
