"""Byte-ified SmolLM2-135M against the same shape from scratch, at equal bytes.

    python benchmarks/byteify_smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf --train TRAIN.txt --dev DEV.txt \
        --text NAME=FILE ... --work runs/byteify --out benchmarks/records/byteify-smollm2.json

Both arms have the same shape, the same new local modules, the same patches, the same windows of text in the same order
and the same schedule, by recipes/byteify-smollm2.toml. The byte-ified one keeps its global transformer frozen at first,
then trains it at a tenth of the learning rate; the one from scratch trains all of it from the start, at the full rate.
Each arm is trained once per learning rate, and the one that is best on the first documents of DEV is measured on the
other texts. Stopped, the same command goes on. Needs transformers and accelerate, whose reading of the same file is
compared with.
"""

from pathlib import Path
from typing import Any

import click
import torch
from record import ROOT, write_record

from blt.api import ByteLM
from blt.checkpoint import write_file
from blt.codec import encode
from blt.data import PrepareConfig, prepare, read_documents
from blt.evaluation import evaluate
from blt.interop.byteify import byteify
from blt.interop.llama import Llama, read_llama
from blt.lm.finite import PARAGRAPH
from blt.model import BLT, preset
from blt.model.hash_embedding import ngram_hashes
from blt.model.layout import lay_out
from blt.training import load_recipe, run_recipe
from blt.training.checkpoints import Checkpoints
from blt.training.monitor import read_metrics

CLAIM = "What a pretrained global transformer does to held-out bits per byte, against the same shape from scratch"
RECIPE = ROOT / "recipes" / "byteify-smollm2.toml"
FROM_SCRATCH = {
    "blt.parts.global_transformer.learning_rate_factor": "1.0",
    "blt.parts.global_transformer.frozen_steps": "0",
}
SEED = 0


@torch.no_grad()
def agreement(llama: Llama, checkpoint: Path) -> dict[str, Any]:
    """Compare the logits of the layers that were read, run as a token model, with transformers on the same file."""
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(checkpoint.parent, gguf_file=checkpoint.name, dtype=torch.float32)
    generator = torch.Generator().manual_seed(SEED)
    token_ids = torch.randint(len(llama.embedding), (2, 128), generator=generator)
    wanted, found = theirs.eval()(token_ids).logits, llama.token_logits(token_ids)
    return {
        "token_ids": "2 × 128, random",
        "largest_deviation_of_logits": float((wanted - found).abs().max()),
        "largest_logit": float(wanted.abs().max()),
        "same_best_token": bool((wanted.argmax(-1) == found.argmax(-1)).all()),
    }


def make_arms(llama: Llama, work: Path) -> dict[str, Path]:
    """Write both models, untrained."""
    arms = {"byteified": work / "models" / "byteified", "from scratch": work / "models" / "scratch"}
    if all(folder.is_dir() for folder in arms.values()):
        return arms
    lm = byteify(llama, preset("tinystories-55m"), donor=ByteLM.from_pretrained(), seed=SEED)
    lm.save_pretrained(arms["byteified"])
    torch.manual_seed(SEED)  # as in byteify: the same new weights, of which it rescales two matrices
    scratch = BLT(lm.blt.config)
    ByteLM(scratch, patch_rule=lm.patch_rule, entropy_model=lm.entropy_model).save_pretrained(arms["from scratch"])
    return arms


def prepare_text(file: str, folder: Path, *, max_bytes: int | None) -> None:
    """Prepare a text, or its first documents up to so many bytes."""
    if folder.is_dir():
        return
    kept: list[bytes] = []
    for document in read_documents(file):
        if max_bytes is not None and sum(map(len, kept)) + len(document) > max_bytes:
            break
        kept.append(document)
    folder.parent.mkdir(parents=True, exist_ok=True)
    text = folder.with_suffix(".txt")
    write_file(text, b"\n<|endoftext|>\n".join(kept))
    prepare(PrepareConfig(inputs=(str(text),), out=str(folder), validation=0.0))


def train(start: Path, out: Path, *, work: Path, overrides: dict[str, str]) -> dict[str, Any]:
    """Train one arm, and tell its course."""
    paths = {
        "out": str(out),
        "start_from": str(start),
        "data.train": str(work / "train"),
        "data.validation": str(work / "dev"),
    }
    run_recipe(load_recipe(RECIPE, overrides=paths | overrides))
    progress = Checkpoints(out / "blt" / "checkpoints").progress()
    course = [row for row in read_metrics(out / "blt" / "metrics.jsonl") if "validation_bits_per_byte" in row]
    print(out, progress, flush=True)
    return {
        "overrides": overrides,
        "bytes_seen": progress.num_bytes,
        "seconds": progress.seconds,
        "best_on_dev": progress.best_bits_per_byte,
        "sizes": sizes(out / "model"),
        "course": course,
    }


@torch.no_grad()
def sizes(folder: Path) -> dict[str, float]:
    """Measure what enters and leaves the global transformer, as the root of the mean square, on a paragraph."""
    lm = ByteLM.from_pretrained(folder)
    byte_ids = encode(PARAGRAPH, bos=True)[None]
    layout = lay_out(byte_ids, lm.patches(byte_ids))
    hashes = ngram_hashes(byte_ids, layout.positions, lm.blt.config.hash_embedding)
    _, patch_states = lm.blt.local_encoder(lm.blt.hash_embedding(byte_ids, hashes), layout)
    latents = lm.blt.global_transformer(patch_states, layout)
    return {
        name: float(x.square().mean().sqrt()) for name, x in {"patch_states": patch_states, "latents": latents}.items()
    }


def measure(folder: Path, texts: dict[str, str], *, limit: int) -> list[dict[str, Any]]:
    """Measure held-out bits per byte on the first documents of each text."""
    lm = ByteLM.from_pretrained(folder)
    rows = []
    for name, file in texts.items():
        documents = [document for document, _ in zip(read_documents(file), range(limit), strict=False)]
        result = evaluate(lm, documents, protocol="documents").to_dict()
        rows.append({"text": f"{name}, first {len(documents)} documents"} | result)
        print(name, result["bits_per_byte"], flush=True)
    return rows


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--train", "train_file", required=True)
@click.option("--train-bytes", type=int, default=None, help="Take the first documents up to so many bytes.")
@click.option("--dev", required=True, help="Held out; what runs are watched by.")
@click.option("--text", "pairs", multiple=True, metavar="NAME=FILE", help="Held out; measured once, at the end.")
@click.option("--rate", "rates", type=float, multiple=True, default=(5e-4, 2e-3), show_default=True, help="To try.")
@click.option("--limit", default=60, show_default=True, help="Documents of each text.")
@click.option("--steps", type=int, default=None, help="In place of the recipe's.")
@click.option("--threads", default=1, show_default=True)
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for models and runs.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(
    checkpoint: Path,
    train_file: str,
    train_bytes: int | None,
    dev: str,
    pairs: tuple[str, ...],
    rates: tuple[float, ...],
    limit: int,
    steps: int | None,
    threads: int,
    work: Path,
    out: Path,
) -> None:
    """Train both arms and write the record."""
    torch.set_num_threads(threads)
    llama = read_llama(checkpoint)
    agrees = agreement(llama, checkpoint)
    print(agrees, flush=True)
    prepare_text(train_file, work / "train", max_bytes=train_bytes)
    prepare_text(dev, work / "dev", max_bytes=None)
    arms = make_arms(llama, work)
    common = {"device": "cpu"} | ({} if steps is None else {"blt.loop.num_steps": str(steps)})
    results: dict[str, Any] = {"checkpoint": checkpoint.name, "agreement_with_transformers": agrees, "arms": {}}
    results["sizes_at_first"] = {name: sizes(folder) for name, folder in arms.items()}
    texts = dict(pair.split("=", 1) for pair in pairs)
    for name, folder in arms.items():
        tried = {}
        for rate in rates:
            overrides = common | (FROM_SCRATCH if name == "from scratch" else {})
            overrides |= {"blt.loop.optimizer.learning_rate": str(rate)}
            out_folder = work / "runs" / f"{folder.name}-{rate}"
            tried[str(rate)] = train(folder, out_folder, work=work, overrides=overrides)
        best = min(tried, key=lambda rate: tried[rate]["best_on_dev"])
        figures = measure(work / "runs" / f"{folder.name}-{best}" / "model", texts, limit=limit)
        results["arms"][name] = {"best_learning_rate": float(best), "figures": figures, "learning_rates": tried}
    results["parameters"] = sum(weight.numel() for weight in ByteLM.from_pretrained(arms["byteified"]).blt.parameters())
    write_record(out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
