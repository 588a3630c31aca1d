"""Writing and reading against llama.cpp on a Llama of equal size, interleaved in one go.

    python -m venv llama && llama/bin/pip install llama-cpp-python gguf
    python benchmarks/beside_llama_cpp.py --peer llama/bin/python --out benchmarks/records/llama-cpp-cpu.json

All have new weights but the bundled model, whose drafts are measured too. A Llama is taken to have 4 bytes per token;
ours have θ for 4.4 and for 6 bytes per patch on the sample text, and read it byte by byte while choosing each byte.
Each round runs every side once, in turn; figures are medians over the rounds. Let the machine be idle: where others
have the cores, threads that wait awake, as llama.cpp's do, come to a fraction of their speed.
"""

import dataclasses
import json
import statistics
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import torch
from record import write_record

from blt.api import ByteLM
from blt.cli.bench import PROMPTS, model_to_measure
from blt.codec import encode
from blt.decoder import kernels
from blt.generation import DraftConfig, Drafter
from blt.generation.speed import TEXT, Limits, Speed, measure_decoding, measure_drafting, measure_limits_of
from blt.lm import DecodingSession
from blt.patching import calibrate

CLAIM = "The native decoder against llama.cpp on a Llama of equal size, one text and a prompt, by type of weights"
BYTES_PER_TOKEN = 4
PEERS = {"float32": "f32", "bfloat16": "bf16", "int8": "q8_0", "int4": "q4_0"}
REFERENCE, BUNDLED = "11:640", "6:384"
PROMPT, PREFILL = 17, 2048
DRAFTERS = {
    "one byte a pass": None,
    "entropy model drafts": DraftConfig(by="entropy", max_draft=2),
    "decoder drafts": DraftConfig(by="decoder"),
}


class Peer:
    """llama.cpp in a process of its own."""

    def __init__(self, python: str, names: list[str], *, threads: int) -> None:
        worker = Path(__file__).with_name("beside_llama_cpp_worker.py")
        self.process = subprocess.Popen(
            [python, str(worker), str(threads), *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about = self._answer()

    def seconds(self, model: str, what: str, tokens: int) -> float:
        """Return how long a request takes."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"model": model, "what": what, "tokens": tokens}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


def at_patches_of(lm: ByteLM, mean_patch_bytes: float) -> ByteLM:
    """Set the threshold for so many bytes per patch on the sample text."""
    byte_ids = encode(TEXT, bos=True, eos=True)
    entropies = lm.entropies(byte_ids[None])
    assert entropies is not None
    lm.patch_rule = calibrate(
        lm.patch_rule, byte_ids=[byte_ids], entropies=[entropies[0]], mean_patch_bytes=mean_patch_bytes
    )
    return lm


def write_text(lm: ByteLM, limits: Limits, *, num_bytes: int, batch: int = 1) -> Speed:
    """Read the sample text byte by byte, once, while choosing each byte."""
    return measure_decoding(
        lm, limits=limits, text=TEXT.encode(), num_bytes=num_bytes, batch=batch, repeats=1, after=PROMPT
    )


def read_prompt(lm: ByteLM) -> float:
    """Return bytes per second of reading a prompt."""
    ids = encode((TEXT * 10).encode()[: PREFILL - 1], bos=True)
    session, start = DecodingSession(lm), time.perf_counter()
    session.add([ids])
    return PREFILL / (time.perf_counter() - start)


def measure(peer: Peer, *, rounds: int, num_bytes: int, types: list[str]) -> dict[str, Any]:
    """Run all sides in turn."""
    ours = {name: model_to_measure(None, "tinystories-55m", dtype=name, device="cpu") for name in types}
    bundled = {name: ByteLM.from_pretrained(dtype=name) for name in types}
    rules = {
        (name, mean): dataclasses.replace(at_patches_of(lm, mean).patch_rule)
        for name, lm in ours.items()
        for mean in (4.4, 6.0)
    }
    limits = {name: measure_limits_of(lm) for name, lm in ours.items()}
    found: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):  # the first warms up
        for name in types:
            for mean in (4.4, 6.0):
                ours[name].patch_rule = rules[name, mean]
                speed = write_text(ours[name], limits[name], num_bytes=num_bytes)
                found[f"write, {name}, blt tinystories-55m at {mean} bytes per patch"].append(speed.bytes_per_second)
                found[f"bytes per patch read, {name} at {mean}"].append(speed.mean_patch_bytes)
                found[f"share of the limit, {name} at {mean}"].append(speed.roofline_share)
                llama = peer.seconds(f"{PEERS[name]}:{REFERENCE}", "generate", num_bytes // BYTES_PER_TOKEN)
                found[f"write, {name}, llama.cpp {PEERS[name]}"].append(num_bytes / llama)
            ours[name].patch_rule = rules[name, 4.4]
            found[f"prompt, {name}, blt tinystories-55m"].append(read_prompt(ours[name]))
            llama = peer.seconds(f"{PEERS[name]}:{REFERENCE}", "prefill", PREFILL // BYTES_PER_TOKEN)
            found[f"prompt, {name}, llama.cpp {PEERS[name]}"].append(PREFILL / llama)
            speed = write_text(bundled[name], limits[name], num_bytes=num_bytes)
            found[f"write, {name}, blt bundled"].append(speed.bytes_per_second)
            llama = peer.seconds(f"{PEERS[name]}:{BUNDLED}", "generate", num_bytes // BYTES_PER_TOKEN)
            found[f"write, {name}, llama.cpp {PEERS[name]} 6x384"].append(num_bytes / llama)
            if number % 3 == 1 and name in ("float32", "bfloat16"):
                speed = write_text(ours[name], limits[name], num_bytes=48, batch=32)
                found[f"32 texts, {name}, blt tinystories-55m"].append(speed.bytes_per_second)
            for what, drafter in DRAFTERS.items():
                drafts = None if drafter is None else Drafter(drafter)
                speed = measure_drafting(bundled[name], drafter=drafts, prompts=PROMPTS, num_bytes=num_bytes)
                found[f"generate, {name}, blt bundled, {what}"].append(speed.bytes_per_second)
                if speed.bytes_per_pass is not None:
                    found[f"bytes per pass, {name}, blt bundled, {what}"].append(speed.bytes_per_pass)
        if number == 0:
            found.clear()
    return {
        what: {"median": statistics.median(rates), "lowest": min(rates), "highest": max(rates)}
        for what, rates in sorted(found.items())
    }


@click.command()
@click.option("--peer", "python", required=True, help="Python of an environment with llama-cpp-python and gguf.")
@click.option("--rounds", default=9, show_default=True)
@click.option("--bytes", "num_bytes", default=256, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--types", default=",".join(PEERS), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write a record there.")
def main(python: str, rounds: int, num_bytes: int, threads: int, types: str, out: Path | None) -> None:
    """Measure both sides in turn."""
    torch.set_num_threads(threads)
    names = types.split(",")
    peer = Peer(python, [f"{PEERS[name]}:{size}" for name in names for size in (REFERENCE, BUNDLED)], threads=threads)
    results = {"kernels": kernels(), "peer": peer.about} | measure(
        peer, rounds=rounds, num_bytes=num_bytes, types=names
    )
    click.echo(json.dumps(results, indent=1))
    if out is not None:
        write_record(out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
