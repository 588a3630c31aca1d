"""Greedy decoding with caches against the full forward, and the memory of a long text.

    python benchmarks/exactness.py --out benchmarks/records/exactness-cpu.json

The shape `tinystories-55m` with new weights writes greedily, byte by byte and with bytes drafted ahead, alone and
eight texts at once, by every patch rule. Each text is then read by the full forward pass, without any cache, and its
likeliest byte at each position compared with what was written; since the logits after a prefix are those of the same
prefix inside a longer text (law 2), that is what decoding without a cache would write. Then a text of 100,000 bytes is
read.
"""

import dataclasses
import resource
from pathlib import Path
from typing import Any

import click
import torch
from record import write_record

from blt.api import ByteLM
from blt.cli.bench import model_to_measure
from blt.codec import BOE_ID, BOS_ID, BPE_ID, EOS_ID, encode
from blt.generation import DraftConfig, Drafter, Engine, GenerationConfig, Request
from blt.generation.speed import TEXT
from blt.lm import DecodingSession
from blt.patching import ByteRule, EntropyAndRiseRule, EntropyRiseRule, EntropyRule, PatchRule, SpaceRule, StaticRule

CLAIM = "Greedy decoding with caches writes what the full forward pass would, and memory grows by global entries alone"
NEVER_WRITTEN = [BOE_ID, BOS_ID, BPE_ID]
PROMPTS = [TEXT[start * 11 : start * 11 + 17 + 5 * start] for start in range(8)]
DRAFTERS: dict[str, DraftConfig | None] = {
    "no drafting": None,
    "drafting by entropy": DraftConfig(by="entropy", min_probability=0.0),
    "drafting by decoder": DraftConfig(by="decoder", min_probability=0.0),
}


def write(lm: ByteLM, prompts: list[str], *, num_bytes: int, draft: DraftConfig | None) -> list[bytes]:
    config = GenerationConfig(max_new_bytes=num_bytes, temperature=0, valid_utf8=False)
    requests = [Request(prompt, config) for prompt in prompts]
    engine = Engine(lm, drafter=None if draft is None else Drafter(draft))
    engine.add(requests)
    while engine.step():
        pass
    return [request.generation().data for request in requests]


@torch.inference_mode()
def compare(lm: ByteLM, texts: list[bytes], prompts: list[str]) -> dict[str, Any]:
    """Count the bytes that the full forward would not have written, and the smallest lead of a likeliest byte."""
    wrong, compared, lead = 0, 0, float("inf")
    for text, prompt in zip(texts, prompts, strict=True):
        ids = encode(text, bos=True)[None]
        logits = lm.blt(ids, lm.patches(ids))[0, :-1]
        logits[:, NEVER_WRITTEN] = -torch.inf
        first = len(prompt.encode())
        best = logits.topk(2).values[first:]
        wrong += int((logits.argmax(-1)[first:] != ids[0, first + 1 :]).sum())
        compared += len(best)
        lead = min(lead, float((best[:, 0] - best[:, 1]).min()))
    return {"bytes_compared": compared, "bytes_that_differ": wrong, "smallest_lead_in_logits": lead}


def memory(lm: ByteLM, *, num_bytes: int) -> list[dict[str, Any]]:
    """Read a long text, some bytes at a time, and note what it takes."""
    ids = encode(TEXT.encode() * (1 + num_bytes // len(TEXT)), bos=True)[:num_bytes]
    session, rows, course = DecodingSession(lm), None, []
    rows, _ = session.add([ids[:1]])
    at, num_patches, marks = 1, 0, [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, num_bytes]
    while at < num_bytes:
        session.read(ids[None, at : at + session.max_rollback], rows)
        num_patches += int(session.ends.sum())
        at = min(num_bytes, at + session.max_rollback)
        if at >= marks[0]:
            marks.pop(0)
            resident = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            row = {"bytes_read": at, "patches": num_patches, "caches": session.num_bytes(), "peak_resident": resident}
            course.append(row)
            click.echo(row)
    return course


@click.command()
@click.option("--bytes", "num_bytes", default=2000, show_default=True)
@click.option("--long", "long_bytes", default=100_000, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write a record there.")
def main(num_bytes: int, long_bytes: int, threads: int, out: Path | None) -> None:
    """Compare, and read a long text."""
    torch.set_num_threads(threads)
    lm = model_to_measure(None, "tinystories-55m", dtype="float32", device="cpu")
    with torch.no_grad():
        lm.blt.hash_embedding.bytes.weight[EOS_ID] = 0  # never the likeliest, so that no text ends early
    by_entropy = lm.patch_rule
    assert isinstance(by_entropy, EntropyRule)
    rules: dict[str, PatchRule] = {
        "entropy": by_entropy,
        "entropy, at most 6 bytes": dataclasses.replace(by_entropy, max_length=6),
        "entropy-rise": EntropyRiseRule(threshold=0.0),
        "entropy-and-rise": EntropyAndRiseRule(threshold=by_entropy.threshold, rise_threshold=0.0),
        "space": SpaceRule(),
        "static": StaticRule(length=4),
        "byte": ByteRule(),
    }
    compared: dict[str, Any] = {}
    for rule_name, rule in rules.items():
        lm.patch_rule = rule
        for batch in (1, 8):
            for draft_name, draft in DRAFTERS.items():
                if draft_name == "drafting by entropy" and not rule.needs_entropies:
                    continue
                if rule_name != "entropy" and draft is not None:
                    continue  # drafts by the default rule alone
                texts = write(lm, PROMPTS[:batch], num_bytes=num_bytes, draft=draft)
                name = f"{rule_name}, {draft_name}, batch {batch}"
                compared[name] = compare(lm, texts, PROMPTS[:batch])
                click.echo(f"{name}: {compared[name]}")
    lm.patch_rule = by_entropy
    results = {"greedy": compared, "memory": memory(lm, num_bytes=long_bytes)}
    if out is not None:
        write_record(out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
