"""One run: a side with new weights, trained on the bytes that its budget pays for, then scored.

All sides share this loop, its optimiser (Muon for hidden matrices, AdamW for the rest), its schedule, the order of the
documents and the bytes per step. A side reads a stream of whole documents, BOS and EOS included, in windows of 2,048
bytes or as many tokens as those are on average.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import nn

from blt.api import ByteLM
from blt.codec import BYTE_OFFSET, EOS_ID, VOCABULARY_SIZE
from blt.data import Batch, Shards
from blt.entropy import EntropyModel
from blt.evaluation import compute_entropies
from blt.loss import next_byte_loss
from blt.model import BLT
from blt.patching import EntropyRiseRule, EntropyRule, Patches, PatchRule, SpaceRule, StaticRule, calibrate, patch
from blt.shapes import Float, Tensor
from blt.training.optimizers import AdamWConfig, MuonConfig, build_optimizers, clip_gradients
from blt.training.schedules import WSDConfig

from .plan import Job
from .sides import (
    ENTROPY_SHAPE,
    FLOPS_BY_SIZE,
    Reading,
    SideCost,
    blt_cost,
    blt_shape,
    new_module,
    plain_cost,
    plain_shape,
)
from .texts import MAX_BYTES, Corpus, HeldOut
from .tokens import BPE, byte_ids

ROWS = 2
"""Windows in a step."""
SCHEDULE = WSDConfig(warmup_steps=10, decay_fraction=0.5)
ENTROPY_FLOPS = 6e10
"""Of the training of an entropy model."""
ENTROPY_RATE = 0.02
CALIBRATION_BYTES = 300_000
IDS_PER_BATCH = 1 << 14

Ids = NDArray[np.int64]
Loss = Callable[[Batch], Tensor]
"""A batch → the nats of its targets, `B T`."""


def optimizer_of(rate: float) -> MuonConfig:
    """Return the optimiser that all sides have."""
    return MuonConfig(
        learning_rate=rate,
        momentum=0.9,
        weight_decay=0.1,
        adamw=AdamWConfig(learning_rate=rate / 2, weight_decay=0.0),
    )


class Stream:
    """Documents in a random order, one after another, again and again in new orders.

    Args:
        documents: ids of each, BOS and EOS included.
        seed: of the orders; with the same seed every side reads the same documents.
        entropies: numbers of documents → their entropies, one array each.
    """

    def __init__(
        self,
        documents: Sequence[Ids],
        *,
        seed: int,
        entropies: Callable[[Sequence[int]], list[NDArray[np.float32]]] | None = None,
    ) -> None:
        self._documents, self._entropies, self._seed = documents, entropies, seed

    def take(self, count: int) -> tuple[Ids, NDArray[np.float32] | None]:
        """Return the first `count` ids, and their entropies."""
        order = self._order(count)
        ids = np.concatenate([self._documents[number] for number in order])[:count]
        return ids, None if self._entropies is None else np.concatenate(self._entropies(order))[:count]

    def _order(self, count: int) -> list[int]:
        found: list[int] = []
        epoch = held = 0
        while held < count:
            for number in np.random.default_rng([self._seed, epoch]).permutation(len(self._documents)).tolist():
                found.append(number)
                held += len(self._documents[number])
                if held >= count:
                    break
            epoch += 1
        return found


def batches(stream: Stream, *, width: int, steps: int, rows: int = ROWS) -> Iterator[Batch]:
    """Return the batches of so many steps; every id but the first is predicted once."""
    ids, entropies = stream.take(steps * rows * width + 1)
    for step in range(steps):
        starts = [(step * rows + row) * width for row in range(rows)]
        yield Batch.of(
            torch.from_numpy(np.stack([ids[start : start + width + 1] for start in starts])),
            entropies=None
            if entropies is None
            else torch.from_numpy(np.stack([entropies[start : start + width] for start in starts])),
        )


def fit(module: nn.Module, loss: Loss, some: Iterator[Batch], *, steps: int, rate: float) -> None:
    """Train a module."""
    optimizers = build_optimizers(module, optimizer_of(rate))
    module.train()
    for step, batch in enumerate(some):
        factor = SCHEDULE.factor(step, num_steps=steps)
        nats = loss(batch)
        (nats.sum() / (batch.targets >= 0).sum()).backward()
        clip_gradients(module.parameters(), max_norm=1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    module.eval()


@torch.inference_mode()
def bits_by_document(
    loss: Loss, documents: Sequence[Ids], *, entropies: Sequence[NDArray[np.float32]] | None = None
) -> NDArray[np.float64]:
    """Return the bits of every id of each document after its BOS, its EOS included."""
    found = np.zeros(len(documents))
    order = sorted(range(len(documents)), key=lambda number: -len(documents[number]))
    while order:
        longest = len(documents[order[0]])
        count = max(1, IDS_PER_BATCH // longest)
        some, order = order[:count], order[count:]
        rows = np.full((count, longest + 1), EOS_ID, np.int64)[: len(some)]
        told = np.zeros((len(some), longest), np.float32)
        for row, number in enumerate(some):
            rows[row, : len(documents[number])] = documents[number]
            if entropies is not None:
                told[row, : len(documents[number])] = entropies[number]
        batch = Batch.of(
            torch.from_numpy(rows),
            lengths=torch.tensor([len(documents[number]) for number in some]),
            entropies=None if entropies is None else torch.from_numpy(told),
        )
        found[some] = loss(batch).double().sum(1).numpy() / math.log(2)
    return found


def plain_loss(module: nn.Module) -> Loss:
    """Return the loss of a plain Transformer, or of an entropy model."""
    return lambda batch: next_byte_loss(module(batch.byte_ids), batch.targets, reduction="none")


def blt_loss(module: nn.Module, rule: PatchRule) -> Loss:
    """Return the loss of a BLT; what fills a row up is one open patch, which nobody reads."""

    def loss(batch: Batch) -> Float[Tensor, "B T"]:
        ends = patch(batch.byte_ids, rule, entropies=batch.entropies).ends & batch.is_read
        return next_byte_loss(module(batch.byte_ids, Patches(ends=ends)), batch.targets, reduction="none")

    return loss


class Prepared:
    """What the runs on one corpus share: ids, the BPEs and the entropy model; computed once, kept in a folder."""

    def __init__(self, corpus: Corpus, folder: Path) -> None:
        self.corpus, self.folder = corpus, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(str(folder / "lock"))
        self._tokens: tuple[int, list[Ids]] | None = None
        self._entropies: dict[int, NDArray[np.float32]] = {}

    @cached_property
    def byte_documents(self) -> list[Ids]:
        """Ids of the training documents."""
        return [byte_ids(document) for document in self.corpus.train]

    @cached_property
    def byte_reading(self) -> Reading:
        """How byte models read the training text."""
        return self.reading(self.byte_documents)

    def reading(self, documents: Sequence[Ids]) -> Reading:
        """Measure ids of the training text."""
        return Reading.of(documents, num_bytes=sum(map(len, self.corpus.train)))

    def bpe(self, vocabulary: int) -> BPE:
        """Return the BPE of that many ids, learnt from the training text."""
        path = self.folder / f"bpe-{vocabulary}.json"
        with self._lock:
            if not path.exists():
                BPE.train(self.corpus.train, vocabulary=vocabulary).save(path)
        return BPE.load(path)

    def tokens(self, bpe: BPE) -> list[Ids]:
        """Return the training text in tokens; that of the last BPE is kept in memory."""
        if self._tokens is not None and self._tokens[0] == bpe.vocabulary:
            return self._tokens[1]
        path = self.folder / f"tokens-{bpe.vocabulary}.npz"
        with self._lock:
            if not path.exists():
                found = [bpe.encode(document) for document in self.corpus.train]
                np.savez(path, ids=np.concatenate(found), lengths=[len(ids) for ids in found])
        stored = np.load(path)
        self._tokens = bpe.vocabulary, np.split(stored["ids"], np.cumsum(stored["lengths"])[:-1])
        return self._tokens[1]

    @cached_property
    def entropy_model(self) -> EntropyModel:
        """The frozen entropy model of all BLTs of this corpus."""
        path = self.folder / "entropy.pt"
        model = EntropyModel(ENTROPY_SHAPE)
        with self._lock:
            if not path.exists():
                cost = plain_cost(ENTROPY_SHAPE, vocabulary=VOCABULARY_SIZE, reading=self.byte_reading)
                width, rows = 512, 4
                per_step = cost.training / self.byte_reading.positions_per_byte * width * rows
                steps = round(ENTROPY_FLOPS / per_step)
                torch.manual_seed(0)
                model = EntropyModel(ENTROPY_SHAPE)
                some = batches(Stream(self.byte_documents, seed=1000), width=width, steps=steps, rows=rows)
                fit(model, plain_loss(model), some, steps=steps, rate=ENTROPY_RATE)
                torch.save(model.state_dict(), path)
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()

    def train_entropies(self, numbers: Sequence[int]) -> list[NDArray[np.float32]]:
        """Return the entropies of some training documents, and keep them in memory: short runs read few of them."""
        missing = sorted({number for number in numbers if number not in self._entropies})
        if missing:
            found = self.entropies([self.corpus.train[number] for number in missing])
            self._entropies.update(zip(missing, found, strict=True))
        return [self._entropies[number] for number in numbers]

    def entropies(self, documents: Sequence[bytes]) -> list[NDArray[np.float32]]:
        """Return the entropies of documents, one array each."""
        store = compute_entropies(self.entropy_model, Shards.from_documents(list(documents)))
        lengths = [len(document) + 2 for document in documents]
        return np.split(store.read(0, store.num_ids), np.cumsum(lengths)[:-1])

    def rule(self, name: str, length: float) -> PatchRule:
        """Return a patch rule, whose threshold gives that mean length on the training text."""
        if name == "space":
            return SpaceRule()
        if name == "static":
            return StaticRule(length=round(length))
        ends = np.cumsum([len(ids) for ids in self.byte_documents])
        count = min(len(ends), 1 + int(np.searchsorted(ends, CALIBRATION_BYTES)))
        rule = EntropyRule(threshold=1.0) if name == "entropy" else EntropyRiseRule(threshold=0.1)
        return calibrate(
            rule,
            byte_ids=[torch.from_numpy(ids) for ids in self.byte_documents[:count]],
            entropies=[torch.from_numpy(each) for each in self.train_entropies(range(count))],
            mean_patch_bytes=length,
        )

    def ids_per_patch(self, rule: PatchRule) -> float:
        """Measure the mean patch on the training text, special ids and their patches included."""
        count = min(len(self.byte_documents), 500)
        stored = self.train_entropies(range(count)) if rule.needs_entropies else None
        ids = torch.from_numpy(np.concatenate(self.byte_documents[:count]))[None]
        known = None if stored is None else torch.from_numpy(np.concatenate(stored))[None]
        return ids.shape[1] / int(patch(ids, rule, entropies=known).ends.sum())


@dataclass(frozen=True, kw_only=True)
class Side:
    """A side, ready to be trained."""

    module: nn.Module
    loss: Loss
    cost: SideCost
    reading: Reading
    stream: Stream
    encode: Callable[[bytes], Ids]
    about: dict[str, Any]
    rule: PatchRule | None = None
    bpe: BPE | None = None

    @property
    def width(self) -> int:
        """Ids of a window: `MAX_BYTES` bytes, on average."""
        return MAX_BYTES if self.bpe is None else round(MAX_BYTES * self.reading.positions_per_byte)

    @property
    def needs_entropies(self) -> bool:
        """Whether patches need them."""
        return self.rule is not None and self.rule.needs_entropies

    def steps(self, job: Job) -> int:
        """Return the number of steps that a job's budget pays for, or that read its bytes."""
        bytes_per_step = ROWS * self.width / self.reading.positions_per_byte
        if job.num_bytes is not None:
            return round(job.num_bytes / bytes_per_step)
        assert job.budget is not None, "a job has a budget or a number of bytes"
        return round((job.budget - self.cost.once) / (self.cost.training * bytes_per_step))


def side_of(job: Job, prepared: Prepared) -> Side:
    """Build a job's side."""
    if job.side == "blt":
        assert job.size is not None
        shape = blt_shape(job.size)
        rule = prepared.rule(job.rule, job.knob)
        mean = prepared.ids_per_patch(rule)
        cost = blt_cost(
            shape,
            ids_per_patch=mean,
            reading=prepared.byte_reading,
            entropy_training=ENTROPY_FLOPS,
            needs_entropies=rule.needs_entropies,
        )
        module = new_module(shape, vocabulary=VOCABULARY_SIZE, seed=job.seed)
        entropies = prepared.train_entropies if rule.needs_entropies else None
        return Side(
            module=module,
            loss=blt_loss(module, rule),
            cost=cost,
            reading=prepared.byte_reading,
            stream=Stream(prepared.byte_documents, seed=job.seed, entropies=entropies),
            encode=byte_ids,
            about={"ids_per_patch": mean, "threshold": getattr(rule, "threshold", None)},
            rule=rule,
        )
    bpe = prepared.bpe(round(job.knob)) if job.side == "bpe" else None
    documents = prepared.byte_documents if bpe is None else prepared.tokens(bpe)
    reading = prepared.reading(documents)
    vocabulary = VOCABULARY_SIZE if bpe is None else bpe.vocabulary
    window = round(job.knob) if bpe is None else MAX_BYTES
    flops = job.forward if job.size is None else FLOPS_BY_SIZE[job.size]
    plain = plain_shape(vocabulary=vocabulary, reading=reading, window=window, flops=flops, parameters=job.parameters)
    module = new_module(plain, vocabulary=vocabulary, seed=job.seed)
    return Side(
        module=module,
        loss=plain_loss(module),
        cost=plain_cost(plain, vocabulary=vocabulary, reading=reading),
        reading=reading,
        stream=Stream(documents, seed=job.seed),
        encode=byte_ids if bpe is None else bpe.encode,
        about={
            "dim": plain.dim,
            "layers": plain.num_layers,
            "feed_forward": plain.feed_forward_width,
            "vocabulary": vocabulary,
            "bytes_per_token": 1 / reading.positions_per_byte,
        },
        bpe=bpe,
    )


def score(side: Side, held_out: HeldOut, prepared: Prepared) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the bits and bytes of each held-out document, its pieces added up."""
    entropies = prepared.entropies(held_out.pieces) if side.needs_entropies else None
    bits = bits_by_document(side.loss, [side.encode(piece) for piece in held_out.pieces], entropies=entropies)
    count = len(held_out.names)
    total = np.bincount(held_out.document, weights=bits, minlength=count)
    num_bytes = np.bincount(held_out.document, weights=[len(piece) for piece in held_out.pieces], minlength=count)
    return total, num_bytes.astype(np.int64)


def run(job: Job, prepared: Prepared, *, keep: Path | None = None) -> dict[str, Any]:
    """Train and score one job.

    Args:
        job: which.
        prepared: its corpus.
        keep: a folder to save the model to.
    """
    side = side_of(job, prepared)
    steps = side.steps(job)
    positions = steps * ROWS * side.width
    bytes_read = positions / side.reading.positions_per_byte
    ids, _ = side.stream.take(positions + 1)
    start = time.perf_counter()
    fit(side.module, side.loss, batches(side.stream, width=side.width, steps=steps), steps=steps, rate=job.rate)
    seconds = time.perf_counter() - start
    bits, num_bytes = score(side, prepared.corpus.dev, prepared)
    found: dict[str, Any] = {
        "steps": steps,
        "bytes_read": count_bytes(ids[1:], side.bpe),
        "training_flops": side.cost.training * bytes_read + side.cost.once,
        "forward_flops_per_byte": side.cost.forward,
        "parameters": side.cost.parameters,
        "seconds": seconds,
        "dev_bits_per_byte": float(bits.sum() / num_bytes.sum()),
    } | side.about
    if job.scores_test:
        bits, num_bytes = score(side, prepared.corpus.test, prepared)
        found["test_bits_per_byte"] = float(bits.sum() / num_bytes.sum())
        found["test_bits"], found["test_bytes"] = bits.tolist(), num_bytes.tolist()
    if keep is not None:
        save(side, keep, prepared)
    return found


def count_bytes(ids: Ids, bpe: BPE | None) -> int:
    """Return how many bytes of text ids stand for."""
    if bpe is None:
        return int((ids >= BYTE_OFFSET).sum())
    return int(np.array([len(each) for each in bpe.bytes_of])[ids].sum())


def save(side: Side, folder: Path, prepared: Prepared) -> None:
    """Write a trained side: a BLT as the folder of a `ByteLM`, a plain model as weights and, if it has one, its BPE."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if side.rule is not None:
        assert isinstance(side.module, BLT)
        entropy_model = prepared.entropy_model if side.rule.needs_entropies else None
        ByteLM(side.module, patch_rule=side.rule, entropy_model=entropy_model).save_pretrained(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(side.module.state_dict(), folder / "weights.pt")
    if side.bpe is not None:
        side.bpe.save(folder / "bpe.json")
