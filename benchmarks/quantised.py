"""What each type of weights costs: bits per byte as the native decoder computes them, and patches that change.

    blt prepare v2-valid.txt --out data/v2-valid --validation 0
    python benchmarks/quantised.py --data data/v2-valid --out benchmarks/records/quantised.json

Documents are read by the decoder as a server reads them: int8 and int4 also round what enters a product. Each type is
tried with the entropy model as it is, which is what `--dtype` does, and with the entropy model quantised too, which
moves patch ends: by how many, and at what cost, is what the record is for.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from record import write_record

from blt.api import ByteLM
from blt.codec import EOS_ID, encode
from blt.data import Shards
from blt.decoder import kernels
from blt.evaluation.bootstrap import ratio_interval
from blt.lm import DecodingSession
from blt.nn import quantize_weights_

CLAIM = "What int8 and int4 weights cost in bits per byte, and what quantising the entropy model changes"
TYPES = ("float32", "bfloat16", "int8", "int4")
READ_AT_ONCE = 256


@dataclass
class Reading:
    """What was found of each document."""

    nats: list[float]
    num_bytes: list[int]
    ends: list[np.ndarray]

    def bits_per_byte(self) -> float:
        """Return the mean over all bytes."""
        return sum(self.nats) / sum(self.num_bytes) / math.log(2)


@torch.inference_mode()
def read(lm: ByteLM, documents: list[bytes]) -> Reading:
    """Predict every byte of documents, and their ends, by the decoder."""
    found = Reading([], [], [])
    for document in documents:
        ids = encode(document, bos=True)
        session = DecodingSession(lm, max_rollback=READ_AT_ONCE)
        rows = session.start(1)
        logits, ends = [], []
        for start in range(0, len(ids), READ_AT_ONCE):
            logits.append(session.read(ids[None, start : start + READ_AT_ONCE], rows)[0])
            ends.append(session.ends[0].numpy())
        targets = torch.cat([ids[1:], torch.tensor([EOS_ID])])
        logprobs = torch.cat(logits).double().log_softmax(-1).gather(1, targets[:, None])
        found.nats.append(-float(logprobs.sum()))
        found.num_bytes.append(len(document))
        found.ends.append(np.concatenate(ends))
    return found


def describe(reading: Reading, whole: Reading) -> dict[str, Any]:
    """Compare with float32."""
    moved = sum(int((one != other).sum()) for one, other in zip(reading.ends, whole.ends, strict=True))
    ends = sum(int(one.sum()) for one in whole.ends)
    lost = (np.array(reading.nats) - np.array(whole.nats)) / math.log(2)
    low, high = ratio_interval(lost, np.array(whole.num_bytes), resamples=1000, seed=0)
    return {
        "bits_per_byte": reading.bits_per_byte(),
        "more_than_float32": reading.bits_per_byte() - whole.bits_per_byte(),
        "interval_of_95_percent": [low, high],
        "mean_patch_bytes": sum(reading.num_bytes) / sum(int(one.sum()) for one in reading.ends),
        "patch_ends_that_change": moved / ends,
    }


@click.command()
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="Prepared data; its first documents are read."
)
@click.option("--model", help="The bundled model if not given.")
@click.option("--bytes", "num_bytes", default=200_000, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write a record there.")
def main(data: Path, model: str | None, num_bytes: int, threads: int, out: Path | None) -> None:
    """Read the same documents with each type of weights."""
    torch.set_num_threads(threads)
    documents = first_documents(Shards.open(data), num_bytes=num_bytes)
    results: dict[str, Any] = {
        "kernels": kernels(),
        "documents": len(documents),
        "bytes": sum(map(len, documents)),
    }
    whole = read(ByteLM.from_pretrained(model), documents)
    for dtype in TYPES:
        for quantises_entropy in (False, True):
            if quantises_entropy and dtype == "float32":
                continue
            lm = ByteLM.from_pretrained(model, dtype="float32")
            lm.to_type(dtype) if dtype in ("float32", "int8", "int4") else lm.blt.to(torch.bfloat16)
            assert lm.entropy_model is not None
            if quantises_entropy:
                quantize_weights_(lm.entropy_model, stored_as=dtype)  # type: ignore[arg-type]
            name = f"{dtype}, entropy model {dtype if quantises_entropy else 'float32'}"
            results[name] = describe(read(lm, documents), whole)
            click.echo(f"{name}: {results[name]}")
    if out is not None:
        write_record(out, claim=CLAIM, device="cpu", results=results)


def first_documents(shards: Shards, *, num_bytes: int) -> list[bytes]:
    """Return the first documents, of so many bytes at least."""
    found: list[bytes] = []
    for number in range(shards.num_documents):
        if sum(map(len, found)) >= num_bytes:
            break
        found.append(bytes(shards.document(number)))
    return found


if __name__ == "__main__":
    main()
