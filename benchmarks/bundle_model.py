"""Ship a trained run: bf16 weights, model card, and the record of what was measured on them.

    python benchmarks/bundle_model.py runs/tiny --recipe recipes/tiny.toml --train data/tiny-train \
        --valid NAME=FILE --valid NAME=FILE

A run that went on from another model (`start_from`) names that one's record: `--began-with RECORD`.
`tiny` goes into the package, any other model into `checkpoints/`, in shards. The figures are measured on the weights as
shipped, rounded to bf16, with `blt.evaluation.evaluate`.
"""

import argparse
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from record import command

import blt
from blt.api import ByteLM
from blt.checkpoint import load_json, write_json
from blt.configuration import to_dict
from blt.data import Shards, read_documents
from blt.evaluation import PROTOCOLS, evaluate
from blt.training.checkpoints import Checkpoints

BUNDLED = Path("src/blt/bundled")
MAX_SHARD_BYTES = 40_000_000
HISTORY = ("train", "stages", "recipe", "trained_on", "commit", "device")
PROMPTS = ("Once upon a time", "Tom had a red ball.", "One day, a little girl named Lily", "The cat and the dog")
CARD = """\
---
license: mit
library_name: blt
tags: [byte-latent-transformer, tokenizer-free, byte-level]
datasets: [roneneldan/TinyStories]
---

# blt {model}

A Byte Latent Transformer of {parameters:.1f}M parameters, with an entropy model of {entropy_parameters:.2f}M, that
tells short English children's stories, byte by byte. {place}:

    blt generate --prompt "Once upon a time"{option}

## Training

| | |
|---|---|
| data | TinyStories (Eldan and Li, 2023; CDLA-Sharing-1.0), a sample |
{training}
| patch rule | next-byte entropy above θ = {threshold:.4f} nats |
| weights | bf16 |

No validation text was trained on. What to train, and for how long, was chosen on tinystories-dev.

## Held-out bits per byte

Bits of every byte and of the end of each story, divided by the bytes of the text. `documents`: each story alone, from
its start. `windows`: 512-byte cuts. Intervals: 95%, bootstrap over stories (or windows).

| text | protocol | bits per byte | interval | mean patch | sha256 of the text |
|---|---|---|---|---|---|
{figures}

## Samples

Unedited, temperature 0.7, seed 0, 300 bytes.

{samples}

## Use

It is a demonstration. It knows nothing but what short children's stories say, and invents all of it.
"""


def main() -> None:
    """Bundle one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", default="tiny", help="name that it ships under")
    parser.add_argument("--recipe", required=True, help="what it was trained by")
    parser.add_argument("--train", type=Path, required=True, help="prepared folder that the run was trained on")
    parser.add_argument("--valid", action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("--cores", default="two CPU cores", help="what it was trained on, in words")
    parser.add_argument("--began-with", type=Path, metavar="RECORD", help="record of the model it started from")
    arguments = parser.parse_args()

    model = arguments.model
    out, record_name = (
        (BUNDLED, "bundled-model") if model == "tiny" else (Path("checkpoints") / model, f"model-{model}")
    )
    began_with = load_json(arguments.began_with) if arguments.began_with else None
    ByteLM.from_pretrained(arguments.run / "model").save_pretrained(out, dtype="bfloat16")
    lm = ByteLM.from_pretrained(out)
    record = describe(lm, arguments.run, arguments.train, model=model)
    record |= {"recipe": arguments.recipe, "trained_on": arguments.cores}
    if began_with is not None:
        record["began_with"] = {name: began_with[name] for name in HISTORY}
        record["began_with"]["bits_per_byte"] = began_with["figures"][0]["bits_per_byte"]
    record |= measure(lm, dict(pair.split("=", 1) for pair in arguments.valid))
    lm.card = card(record)
    lm.save_pretrained(out, dtype="bfloat16", max_shard_bytes=MAX_SHARD_BYTES)
    path = Path("benchmarks/records") / f"{record_name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)
    print(json.dumps(record, indent=2))


def measure(lm: ByteLM, files: dict[str, str]) -> dict[str, Any]:
    """Measure held-out bits per byte, and let the model speak."""
    rows = []
    for name, file in files.items():
        documents = list(read_documents(file))
        for protocol in PROTOCOLS:
            result = evaluate(lm, documents, protocol=protocol).to_dict()
            rows.append({"text": name} | result)
            print(name, protocol, result["bits_per_byte"], flush=True)
    samples = {prompt: lm.generate(prompt, max_new_bytes=300, temperature=0.7, seed=0).text for prompt in PROMPTS}
    return {"figures": rows, "samples": samples}


def describe(lm: ByteLM, run: Path, train: Path, *, model: str) -> dict[str, Any]:
    """Say what the run was."""
    shards = Shards.open(train)
    stages = {}
    for stage in ("entropy", "blt"):
        best = Checkpoints(run / stage / "checkpoints").pointed("best")
        if best is not None:  # a run that went on from a model may have kept its entropy model
            stages[stage] = load_json(best / "state.json")
    assert lm.entropy_model is not None
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return {
        "claim": f"held-out bits per byte of {model}, weights as shipped (bf16)",
        "command": command(),
        "model": model,
        "commit": head.stdout.strip(),
        "torch": torch.__version__,
        "blt": blt.__version__,
        "device": f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "config": to_dict(lm.config),
        "parameters": sum(weight.numel() for weight in lm.blt.parameters()),
        "entropy_parameters": sum(weight.numel() for weight in lm.entropy_model.parameters()),
        "train": {"documents": shards.num_documents, "distinct_bytes": shards.num_bytes, "checksum": shards.checksum},
        "stages": stages,
    }


def card(record: dict[str, Any]) -> str:
    """Write the model card from the record, and from nothing else."""
    figures = "\n".join(
        f"| {row['text']} | {row['protocol']} | **{row['bits_per_byte']:.4f}** "
        f"| {row['interval_low']:.4f} to {row['interval_high']:.4f} | {row['mean_patch_bytes']:.2f} "
        f"| `{row['data_checksum']}` |"
        for row in record["figures"]
    )
    samples = "\n\n".join("> " + text.replace("\n", "\n> ") for text in record["samples"].values())
    is_bundled = record["model"] == "tiny"
    return CARD.format(
        model=record["model"],
        place="It ships inside the package `blt-llm`" if is_bundled else "In a clone of the repository",
        option="" if is_bundled else f" --model {record['model']}",
        parameters=record["parameters"] / 1e6,
        entropy_parameters=record["entropy_parameters"] / 1e6,
        training=training_rows(record),
        threshold=record["config"]["patch_rule"]["threshold"],
        figures=figures,
        samples=samples,
    )


def training_rows(record: dict[str, Any]) -> str:
    """Return the rows of the card's table that tell of its training, run by run."""
    rows = []
    runs = [*([record["began_with"]] if "began_with" in record else []), record]
    for run, name in zip(runs, ["first run", "second run"] if len(runs) > 1 else ["training"], strict=True):
        found, distinct = run["stages"]["blt"], run["train"]["distinct_bytes"]
        rows.append(
            f"| {name} | {found['num_bytes']:,} bytes seen of {distinct:,} distinct ones, "
            f"{run['train']['documents']:,} stories ({found['num_bytes'] / distinct:.2f} epochs), "
            f"{found['step']:,} steps, {found['seconds'] / 60:.0f} minutes on {run['trained_on']}, "
            f"by `{run['recipe']}` |"
        )
        if entropy := run["stages"].get("entropy"):
            rows.append(f"| entropy model | {entropy['num_bytes']:,} bytes seen, {entropy['seconds']:.0f} seconds |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
