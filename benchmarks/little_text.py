"""What keeps a model from learning a little text by heart, when it goes through it many times.

    python benchmarks/little_text.py --train data/tiny-train --dev data/tiny-dev --work runs/little-text \
        --out benchmarks/records/little-text.json

Every arm trains the small model of `arms.py`, as the recipe does, four times through the same 0.8 MB: every so
many documents of TRAIN. It is measured on the same held-out documents of DEV. Stopped, the same command goes on.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from arms import FASTER_GLOBAL, MUON, Arm, Setting, arm_options, new_model, train
from record import write_record

from blt.data import Shards
from blt.data.prepare import prepare
from blt.data.prepare_config import PrepareConfig

CLAIM = "Four times through little text, bytes that go without their n-grams lower held-out bits per byte the most"
NO_DECAY = MUON | {"weight_decay": "0.0"}
ARMS = {
    "nothing": Arm(optimizer=NO_DECAY),
    "weight decay 0.5": Arm(optimizer=MUON | {"weight_decay": "0.5"}),
    "layer dropout 0.1": Arm(optimizer=NO_DECAY, options=FASTER_GLOBAL | {"blt.layer_dropout": "0.1"}),
    "n-gram dropout 0.5": Arm(optimizer=NO_DECAY, options=FASTER_GLOBAL | {"blt.ngram_dropout": "0.5"}),
    "n-gram dropout 0.5, weight decay 0.2": Arm(
        optimizer=MUON | {"weight_decay": "0.2"}, options=FASTER_GLOBAL | {"blt.ngram_dropout": "0.5"}
    ),
}
EPOCHS = 4


def write_part(folder: str, out: Path, *, num_bytes: int) -> Shards:
    """Prepare a part of a folder's documents, spread over all of it."""
    whole = Shards.open(folder)
    every = max(1, whole.num_bytes // num_bytes)
    documents = [whole.document(number).tobytes() for number in range(0, whole.num_documents, every)]
    text = out.with_suffix(".txt")
    text.write_bytes(b"".join(document + b"\n<|endoftext|>\n" for document in documents))
    prepare(PrepareConfig(inputs=(str(text),), out=str(out), validation=0.0))
    return Shards.open(out)


@click.command()
@click.option("--megabytes", default=0.8, show_default=True, help="Of text.")
@arm_options
def main(setting: Setting, *, megabytes: float) -> None:
    """Train the arms, and write the record."""
    part = write_part(setting.train, setting.work / "text", num_bytes=int(megabytes * 1e6))
    place = replace(setting.place("new"), train=str(setting.work / "text"))
    if not place.start.is_dir():
        new_model(setting.donor()).save_pretrained(place.start)
    results: dict[str, Any] = {"documents": part.num_documents, "bytes": part.num_bytes, "epochs": EPOCHS, "arms": {}}
    for name, arm in ARMS.items():
        results["arms"][name] = train(name, arm, place, steps=arm.steps(EPOCHS * part.num_ids / 1e6))
    write_record(setting.out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
