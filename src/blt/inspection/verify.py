"""The laws of causality and isolation, tried on a model as it is: a checkpoint may come from anywhere.

`logits[b, t]` may depend on bytes ≤ t of the same document, and on nothing else. Each law tries this in its own way,
on entropies, patches and logits. Patches are compared at equal entropies, since rounding may move a boundary wherever
an entropy lies right at the threshold.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from blt.codec import BOE_ID, BOS_ID, EOS_ID
from blt.inspection.deviation import TOLERANCES, LawReport, Witness
from blt.inspection.sample import Sample
from blt.lm import DecodingSession, LanguageModel
from blt.patching import Patches, patch
from blt.shapes import Bool, Float, Int, Tensor

Law = Callable[[LanguageModel, Sample, Witness], None]


class _Reading(NamedTuple):
    """What a model makes of a batch."""

    byte_ids: Int[Tensor, "B T"]
    entropies: Float[Tensor, "B T"] | None
    ends: Bool[Tensor, "B T"]
    logits: Float[Tensor, "B T V"]

    def part(self, row: int, bytes_of_row: slice) -> "_Reading":
        """Return one row's part."""
        cut = (slice(row, row + 1), bytes_of_row)
        entropies = None if self.entropies is None else self.entropies[cut]
        return _Reading(self.byte_ids[cut], entropies, self.ends[cut], self.logits[cut])


def verify(lm: LanguageModel, *, text: bytes | None = None, seed: int = 0) -> list[LawReport]:
    """Try every law on a model.

    Args:
        lm: the model.
        text: what to try them on, beside random bytes; by default a paragraph.
        seed: of the random bytes and positions.

    Returns:
        One report per law, in the order of `LAWS`.

    Raises:
        DataError: the text is empty.
    """
    tolerance = TOLERANCES.get(lm.blt.hash_embedding.bytes.weight.dtype, 1e-4)
    reports = []
    for name, law in LAWS.items():
        witness = Witness(name, tolerance=0.0 if law is causality_by_gradient else tolerance)
        law(lm, Sample.draw(lm, text=text, seed=seed), witness)
        reports.append(witness.report())
    return reports


@torch.no_grad()
def causality_by_edit(lm: LanguageModel, sample: Sample, witness: Witness) -> None:
    """Change a byte: nothing before it may change."""
    row, whole = sample.row, _read(lm, sample.row)
    witness.compare(lm(row), whole.logits, "the parts together: logits")
    at_random_ends = lm.blt(row, Patches(ends=sample.random_ends))
    for position in sample.positions(9, ends=whole.ends):
        for new_id in (sample.other_id(int(row[0, position])), BOS_ID if position % 2 else EOS_ID):
            edited, before = row.clone(), slice(0, position)
            edited[0, position] = new_id
            found, what = _read(lm, edited), f"byte {position} edited"
            if whole.entropies is not None and found.entropies is not None:
                witness.compare(found.entropies[:, before], whole.entropies[:, before], f"{what}: entropies")
            witness.forbid(found.ends[:, before] != whole.ends[:, before], f"{what}: patch ends")
            witness.compare(found.logits[:, before], whole.logits[:, before], f"{what}: logits")
    for position in sample.positions(6, ends=sample.random_ends):
        edited, before = row.clone(), slice(0, position)
        edited[0, position] = sample.other_id(int(row[0, position]))
        found_logits = lm.blt(edited, Patches(ends=sample.random_ends))[:, before]
        witness.compare(found_logits, at_random_ends[:, before], f"byte {position} edited, random patches: logits")


@torch.no_grad()
def causality_by_truncation(lm: LanguageModel, sample: Sample, witness: Witness) -> None:
    """Read a prefix alone: it must be what it was inside the whole."""
    whole = _read(lm, sample.row)
    for length in sample.positions(9, ends=whole.ends):
        prefix = slice(0, length)
        _compare_alone(lm, whole.part(0, prefix), witness, f"cut to {length} bytes")
    at_random_ends = lm.blt(sample.row, Patches(ends=sample.random_ends))
    for length in sample.positions(6, ends=sample.random_ends):
        alone = lm.blt(sample.row[:, :length], Patches(ends=sample.random_ends[:, :length]))
        witness.compare(alone, at_random_ends[:, :length], f"cut to {length} bytes, random patches: logits")


def causality_by_gradient(lm: LanguageModel, sample: Sample, witness: Witness) -> None:
    """Ask for the gradient of what is known after byte t in the embedding of every later byte: exactly zero."""
    row, patches = sample.row, lm.patches(sample.row)
    for name, given in (("", patches), (", random patches", Patches(ends=sample.random_ends))):
        positions = [position - 1 for position in sample.positions(6, ends=given.ends)]
        logits, embedded = _with_leaf(lm.blt.hash_embedding, functools.partial(lm.blt, row, given))
        _note_gradients(logits, embedded, positions, witness, f"gradient of logits{name}")
    model = lm.entropy_model
    if model is not None:
        positions = [position - 1 for position in sample.positions(6, ends=patches.ends)]
        logits, embedded = _with_leaf(model.bytes, functools.partial(model, row))
        _note_gradients(logits, embedded, positions, witness, "gradient of the entropy model's logits")


@torch.no_grad()
def documents_packed(lm: LanguageModel, sample: Sample, witness: Witness) -> None:
    """Lay documents end to end in one row, with and without EOS: each must be what it is alone."""
    for ending, documents in (("", sample.documents), (" without EOS", [ids[:-1] for ids in sample.documents])):
        packed = _read(lm, torch.cat(list(documents))[None])
        start = 0
        for number, ids in enumerate(documents):
            part = packed.part(0, slice(start, start + len(ids)))
            _compare_alone(lm, part, witness, f"document {number}{ending}")
            start += len(ids)


@torch.no_grad()
def batch_of_singles(lm: LanguageModel, sample: Sample, witness: Witness) -> None:
    """Read rows of unequal lengths in one batch: each must be what it is alone."""
    byte_ids, lengths = sample.batch()
    together = _read(lm, byte_ids)
    for row, length in enumerate(lengths):
        _compare_alone(lm, together.part(row, slice(0, length)), witness, f"row {row} of a batch")


@torch.no_grad()
def padding_inert(lm: LanguageModel, sample: Sample, witness: Witness) -> None:
    """Put padding of any kind behind a row: nothing in the row may change."""
    row = sample.row[:, : sample.length * 2 // 3]
    for padding_id in (BOE_ID, EOS_ID, BOS_ID, int(row[0, -1])):
        for amount in (1, 50):
            padded = _read(lm, nn.functional.pad(row, (0, amount), value=padding_id))
            part = padded.part(0, slice(0, row.shape[1]))
            _compare_alone(lm, part, witness, f"{amount} ids {padding_id} behind the row")


@torch.no_grad()
def cached_step(lm: LanguageModel, sample: Sample, witness: Witness) -> None:
    """Read byte by byte with caches, as generation does: the same logits as those of the full forward."""
    documents, lengths = sample.batch()
    for what, byte_ids, counts in (("the row", sample.row, [sample.length]), ("a batch", documents, lengths)):
        session = DecodingSession(lm)
        rows = session.start(len(byte_ids))
        steps = [(session.read(ids[:, None], rows), session.ends) for ids in byte_ids.T]
        logits, ends = (torch.cat(parts, dim=1) for parts in zip(*steps, strict=True))
        is_real = torch.arange(byte_ids.shape[1], device=lm.device) < torch.tensor(counts, device=lm.device)[:, None]
        moved = (ends != lm.patches(byte_ids).ends) & is_real
        witness.forbid(_first(moved) & ~_near_tie(lm, byte_ids, witness.tolerance), f"{what}, stepped: patch ends")
        full = lm.blt(byte_ids, Patches(ends=ends.clone()))
        witness.compare(logits * is_real[..., None], full * is_real[..., None], f"{what}, stepped: logits")


LAWS: dict[str, Law] = {
    "causality by edit": causality_by_edit,
    "causality by truncation": causality_by_truncation,
    "causality by gradient": causality_by_gradient,
    "documents packed in a row = alone": documents_packed,
    "a batch of n = n singles": batch_of_singles,
    "padding is inert": padding_inert,
    "cached step = full forward": cached_step,
}
"""Every law, by name."""


def _read(lm: LanguageModel, byte_ids: Int[Tensor, "B T"]) -> _Reading:
    patches = lm.patches(byte_ids)
    return _Reading(byte_ids, lm.entropies(byte_ids), patches.ends, lm.blt(byte_ids, patches))


def _compare_alone(lm: LanguageModel, inside: _Reading, witness: Witness, what: str) -> None:
    """Read a part alone, and compare with what it was inside the whole, step by step at equal inputs."""
    ids = inside.byte_ids
    alone = lm.entropies(ids)
    if alone is not None and inside.entropies is not None:
        witness.compare(alone, inside.entropies, f"{what}: entropies")
    ends = patch(ids, lm.patch_rule, entropies=inside.entropies).ends
    witness.forbid(ends != inside.ends, f"{what}: patch ends")
    witness.compare(lm.blt(ids, Patches(ends=inside.ends)), inside.logits, f"{what}: logits")


def _with_leaf(embedding: nn.Module, forward: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """Run a forward pass whose embedded bytes are a leaf; give the output and the leaf."""
    caught: list[Tensor] = []

    def catch(_module: nn.Module, _inputs: object, embedded: Tensor) -> Tensor:
        caught.append(embedded.detach().requires_grad_())
        return caught[-1]

    handle = embedding.register_forward_hook(catch)
    try:
        with torch.enable_grad():
            output = forward()
    finally:
        handle.remove()
    return output, caught[-1]


def _note_gradients(output: Tensor, leaf: Tensor, positions: list[int], witness: Witness, what: str) -> None:
    """Note what each position's output feels of later bytes, relative to what it feels of all."""
    for position in positions:
        weighted = output[0, position] * torch.linspace(-1, 1, output.shape[2], device=output.device)
        (gradient,) = torch.autograd.grad(weighted.sum(), leaf, retain_graph=True)
        strength = gradient.abs().amax(2).double()
        later = torch.arange(strength.shape[1], device=strength.device) > position
        share = strength / strength.max().clamp_min(torch.finfo(torch.float64).tiny)
        witness.note(torch.where(later, share, 0.0), f"{what} after byte {position} in the embedding of a later one")


def _first(broken: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """Keep the first of each row; the others may follow from it."""
    return broken & (broken.long().cumsum(1) == 1)


def _near_tie(lm: LanguageModel, byte_ids: Int[Tensor, "B T"], tolerance: float) -> Bool[Tensor, "B T"]:
    """Return where rounding of the entropies may move a patch end."""
    entropies = lm.entropies(byte_ids)
    near = torch.zeros_like(byte_ids, dtype=torch.bool)
    if entropies is None:
        return near
    ends = patch(byte_ids, lm.patch_rule, entropies=entropies).ends
    alternating = torch.where(torch.arange(byte_ids.shape[1], device=lm.device) % 2 == 0, 1.0, -1.0)
    for nudge in (torch.ones_like(alternating), alternating):
        for sign in (tolerance, -tolerance):
            scale = entropies.abs().max().clamp_min(1)
            near |= patch(byte_ids, lm.patch_rule, entropies=entropies + sign * scale * nudge).ends != ends
    return near
