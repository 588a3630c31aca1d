"""What a threshold of patches, or the type of the weights, costs in bits per byte and gains in speed.

    python benchmarks/choosing_compute.py TEXT --out benchmarks/records/choosing-compute-cpu.json

The bundled model is measured as it is, with other thresholds than it was trained with, with weights in other types, and
with bytes drafted ahead. Bits per byte are those of the first documents of TEXT, by the protocol `documents`. Speed is
that of decoding the sample text byte by byte; sides are measured in turn, and figures are medians over the rounds.
"""

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import click
import torch
from record import write_record

from blt.api import ByteLM
from blt.cli.bench import PROMPTS
from blt.codec import encode
from blt.data import read_documents
from blt.evaluation import evaluate
from blt.generation import DraftConfig, Drafter
from blt.generation.speed import TEXT, measure_decoding, measure_drafting, measure_limits
from blt.lm import DecodingSession

CLAIM = "Speed of decoding against bits per byte, by threshold and by type of the weights, on the bundled model"
FACTORS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
TYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8", "int4": "int4"}
PROBABILITIES = (0.4, 0.6, 0.8)


def cost_of_bytes(lm: ByteLM, *, num_passes: int) -> dict[str, float]:
    """Measure what decides whether drafting pays: where a byte's time goes, and what a further byte in a pass costs.

    Returns:
        Microseconds per byte of the local models (the entropy model among them) and of the global transformer where a
        pass reads one byte; what each further byte of a pass of four costs of a first one's local time; and the
        speed-up of perfect drafts without end.
    """
    ids = encode(TEXT * 10, bos=True)
    found = {}
    for width in (1, 4):
        session, start = DecodingSession(lm), 1 + width * num_passes
        rows, _ = session.add([ids[:start]])
        for part in (slice(0, num_passes), slice(num_passes, 2 * num_passes)):  # the first warms up
            before = session.seconds() or {}
            for number in range(part.start, part.stop):
                session.read(ids[None, start + number * width : start + (number + 1) * width], rows)
            spent = {name: seconds - before[name] for name, seconds in (session.seconds() or {}).items()}
        in_global = spent.pop("global transformer")
        found[width] = sum(spent.values()) / num_passes, in_global / num_passes / width
    (local, in_global), (four, _) = found[1], found[4]
    further = (four - local) / 3 / local
    return {
        "local_microseconds": 1e6 * local,
        "global_microseconds": 1e6 * in_global,
        "further_byte": further,
        "largest_speed_up": (local + in_global) / (further * local + in_global),
    }


@click.command()
@click.argument("text", type=click.Path(exists=True))
@click.option("--limit", default=80, show_default=True, help="Documents.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--bytes", "num_bytes", default=256, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--model", help="Folder or name; the bundled model if not given.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a record there.")
def main(text: str, limit: int, rounds: int, num_bytes: int, threads: int, model: str | None, out: Path | None) -> None:
    """Measure quality once, and speed in turn."""
    torch.set_num_threads(threads)
    documents = [document for document, _ in zip(read_documents(text), range(limit), strict=False)]
    sides: dict[str, ByteLM] = {}
    for name, dtype in TYPES.items():
        sides[name] = ByteLM.from_pretrained(model, dtype=dtype)
    for factor in FACTORS:
        if factor != 1.0:
            lm = ByteLM.from_pretrained(model)
            lm.patch_rule = dataclasses.replace(lm.patch_rule, threshold=lm.patch_rule.threshold * factor)
            sides[f"threshold × {factor}"] = lm
    results: dict[str, Any] = {}
    for name, lm in sides.items():
        found = evaluate(lm, documents, protocol="documents")
        results[name] = {"threshold": lm.patch_rule.threshold, "bits_per_byte": found.bits_per_byte}
        results[name]["mean_patch_bytes"] = found.mean_patch_bytes
    limits, rates = measure_limits(torch.device("cpu")), {name: [] for name in sides}
    plain, drafting = [], {(by, least): [] for by in ("entropy", "decoder") for least in PROBABILITIES}
    costs: list[dict[str, float]] = []
    for _ in range(rounds):
        for name, lm in sides.items():
            speed = measure_decoding(lm, limits=limits, text=TEXT.encode(), num_bytes=num_bytes, batch=1, repeats=1)
            rates[name].append(speed.bytes_per_second)
        plain.append(measure_drafting(sides["fp32"], drafter=None, prompts=PROMPTS, num_bytes=num_bytes))
        for (by, least), found_speeds in drafting.items():
            drafter = Drafter(DraftConfig(by=by, min_probability=least))
            speed = measure_drafting(sides["fp32"], drafter=drafter, prompts=PROMPTS, num_bytes=num_bytes)
            found_speeds.append(speed)
        costs.append(cost_of_bytes(sides["fp32"], num_passes=num_bytes // 4))
    for name, values in rates.items():
        results[name]["bytes_per_second"] = statistics.median(values)
        click.echo(f"{name:<20}{results[name]}")
    one_by_one = statistics.median(speed.bytes_per_second for speed in plain)
    drafted: dict[str, Any] = {"one byte per pass": {"bytes_per_second": one_by_one}}
    for (by, least), speeds in drafting.items():
        rate = statistics.median(speed.bytes_per_second for speed in speeds)
        drafted[f"by {by}, least probability {least}"] = {
            "bytes_per_second": rate,
            "bytes_per_pass": speeds[0].bytes_per_pass,
            "speed_up": rate / one_by_one,
        }
    for name, row in drafted.items():
        click.echo(f"{name:<40}{row}")
    if out is not None:
        found_all = {"documents": len(documents), "by_side": results, "drafting": drafted}
        found_all["cost of bytes, fp32"] = {name: statistics.median(cost[name] for cost in costs) for name in costs[0]}
        write_record(out, claim=CLAIM, device="cpu", results=found_all | {"limits": dataclasses.asdict(limits)})


if __name__ == "__main__":
    main()
