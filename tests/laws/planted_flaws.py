"""Wrong models, each with one flaw that a law must notice."""

import dataclasses
from functools import cached_property

import pytest
import torch
from checks_model import Forward

import blt.model.blt
import blt.model.cross_attention
import blt.nn.transformer
from blt.entropy import EntropyModel
from blt.model import BLT
from blt.model.layout import Layout, lay_out
from blt.nn import WindowPattern
from blt.ops import attend_within_slots, segment_max
from blt.patching import Patches
from blt.shapes import Float, Int, Tensor


class OwnPatchReadable(Patches):
    """Each byte reads the patch that it lies in, which later bytes have fed."""

    @cached_property
    def readable(self) -> Tensor:
        return self.ids


class PreviousPatchReadable(Patches):
    """Each byte reads the patch before its own: causal, but the byte that closes a patch is denied it."""

    @cached_property
    def readable(self) -> Tensor:
        return self.ids - 1


def reading_its_own_patch(model: BLT) -> Forward:
    return lambda byte_ids, ends: model(byte_ids, OwnPatchReadable(ends=ends))


def storing_starts(model: BLT) -> Forward:
    """Where starts are stored, a patch is complete when the next one starts, or when the row is over."""

    def forward(byte_ids: Tensor, ends: Tensor) -> Tensor:
        ends = ends.clone()
        ends[:, -1] = True
        return model(byte_ids, Patches(ends=ends))

    return forward


def plant_pooling_of_the_following_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each patch is fed by the bytes one later than its own."""

    def flawed(byte_ids: Tensor, patches: Patches) -> Layout:
        layout = lay_out(byte_ids, patches)
        one_later = torch.nn.functional.pad(layout.pooled_into, (1, 0), value=layout.num_slots)[:, :-1]
        return dataclasses.replace(layout, pooled_into=one_later)

    monkeypatch.setattr(blt.model.blt, "lay_out", flawed)


def plant_mixed_rows_in_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool of slot p takes the bytes of slot p of every row."""

    def flawed(states: Tensor, slots: Tensor, *, num_slots: int) -> Tensor:
        return segment_max(states, slots, num_slots=num_slots).amax(0, keepdim=True).expand(states.shape[0], -1, -1)

    monkeypatch.setattr(blt.model.blt, "segment_max", flawed)


def plant_mixed_rows_in_cross_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a patch gathers is summed over the same slot of every row."""

    def flawed(queries: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> Tensor:
        gathered = attend_within_slots(queries, keys, values, slots)
        return gathered.sum(0, keepdim=True).expand(len(queries), *[-1] * 4)

    monkeypatch.setattr(blt.model.cross_attention, "attend_within_slots", flawed)


def plant_wide_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each position sees one more than its window."""

    class Wide(WindowPattern):
        def __init__(self, segments: Tensor, *, window: int) -> None:
            super().__init__(segments, window=window + 1)

    monkeypatch.setattr(blt.nn.transformer, "WindowPattern", Wide)


def plant_windows_across_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions see those of the document before."""

    class Blind(WindowPattern):
        def __init__(self, segments: Tensor, *, window: int) -> None:
            super().__init__(torch.zeros_like(segments), window=window)

    monkeypatch.setattr(blt.nn.transformer, "WindowPattern", Blind)


def plant_ngrams_across_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """An n-gram at the start of a document reaches into the one before."""
    original = blt.model.blt.ngram_hashes

    def flawed(byte_ids: Tensor, positions: Tensor, config: object) -> Tensor:
        in_row = torch.arange(byte_ids.shape[1]).expand_as(byte_ids)
        return original(byte_ids, in_row, config)

    monkeypatch.setattr(blt.model.blt, "ngram_hashes", flawed)


class EntropyModelThatLooksAhead(EntropyModel):
    """Its entropy after a byte is that after the next one."""

    def entropies(self, byte_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return torch.roll(super().entropies(byte_ids), -1, dims=1)


def looking_ahead(model: EntropyModel) -> EntropyModel:
    flawed = EntropyModelThatLooksAhead(model.config).eval().requires_grad_(False)
    flawed.load_state_dict(model.state_dict())
    return flawed
