"""What a run measures at each validation, held-out bits per byte, and the sample that it writes.

Held-out documents are read each alone, as generation sees them (protocol `documents`).
"""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from blt.api import ByteLM
from blt.checkpoint import write_file
from blt.codec import BYTE_OFFSET
from blt.data import Batch, EntropyStore, Shards, document_batches
from blt.data.document_batches import MAX_IDS_PER_BATCH
from blt.generation import generate
from blt.training.objectives import Objective


class HeldOut:
    """The first `num_documents` held-out documents.

    Of a very long document only the first `MAX_IDS_PER_BATCH` ids are read, so that a validation stays short.
    """

    def __init__(self, shards: Shards, *, num_documents: int) -> None:
        count = min(num_documents, shards.num_documents)
        self._sample = Shards.from_documents([shards.document(number).tobytes() for number in range(count)])

    @torch.no_grad()
    def bits_per_byte(self, objective: Objective, *, entropies: EntropyStore | None) -> float:
        """Measure the objective's module as it is now: bits of all bytes and EOS, per byte of text."""
        nats, num_bytes = 0.0, 0
        for documents in document_batches(self._sample, max_ids_per_batch=MAX_IDS_PER_BATCH):
            batch = documents if entropies is None else _with_entropies(documents, self._sample, entropies)
            batch = batch.first(MAX_IDS_PER_BATCH)
            num_bytes += int((batch.targets >= BYTE_OFFSET).sum())
            nats += objective.loss_sum(batch).item()
        return nats / math.log(2.0) / max(1, num_bytes)


def _with_entropies(batch: Batch, shards: Shards, entropies: EntropyStore) -> Batch:
    """Read the stored entropies of documents; the sample is a prefix of the split's stream."""
    stored = torch.zeros(batch.byte_ids.shape)
    for row, (number, length) in enumerate(zip(batch.numbers.tolist(), batch.lengths.tolist(), strict=True)):
        start = shards.id_offset(number)
        stored[row, :length] = torch.from_numpy(np.array(entropies.read(start, start + length)))
    return replace(batch, entropies=stored)


SAMPLE_BYTES = 300
TEMPERATURE = 0.7
_HEADER = re.compile(r"--- step ([\d,]+): held-out \S+ bits per byte")


def write_sample(lm: ByteLM, path: Path, *, prompt: str, seed: int, step: int, bits_per_byte: float) -> str:
    """Continue a prompt, and add the text to a file; the random numbers of training stay as they are.

    Returns:
        The prompt and its continuation.
    """
    story = _printable(generate(lm, prompt, max_new_bytes=SAMPLE_BYTES, temperature=TEMPERATURE, seed=seed).text)
    before = path.read_bytes() if path.is_file() else b""
    # Not appended: a kill within the heading would leave a line that is no heading, and stays when the run is resumed.
    sample = f"--- step {step:,}: held-out {bits_per_byte:.4f} bits per byte\n{story}\n"
    write_file(path, before + sample.encode())
    return story


def drop_samples_after(path: Path, *, step: int) -> None:
    """Drop the samples of steps after the one that a run goes on from, and those that stand there twice."""
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    samples: dict[int, list[str]] = {}
    number = 0
    for line in text.splitlines(keepends=True):
        if header := _HEADER.fullmatch(line.rstrip("\n")):
            number = int(header[1].replace(",", ""))
            samples[number] = []
        samples.setdefault(number, []).append(line)
    kept = "".join("".join(lines) for number, lines in samples.items() if number <= step)
    if kept != text:
        write_file(path, kept.encode())


def _printable(text: str) -> str:
    """Show U+FFFD for control characters: a model that has learnt little writes them, and terminals obey them."""
    return "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in text)
