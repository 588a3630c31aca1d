"""Wrong decoders, each with one flaw that the law of cached steps must notice."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import blt.entropy.incremental
import blt.model.incremental
from blt.model import BLTState
from blt.model.patch_memory import OpenPatches, ReadablePatches
from blt.nn import KeyValueCache, LocalConfig, StackSteps, StepInputs, TransformerConfig
from blt.shapes import Tensor


def _plant_cache(monkeypatch: pytest.MonkeyPatch, module: object, *, window: int = 0, max_rollback: int = 0) -> None:
    class Flawed(KeyValueCache):
        def __init__(self, config: TransformerConfig, **options: Any) -> None:
            if isinstance(config, LocalConfig):
                config = dataclasses.replace(config, window=config.window + window)
                options["max_rollback"] += max_rollback
            super().__init__(config, **options)

    monkeypatch.setattr(module, "KeyValueCache", Flawed)


def plant_a_window_one_too_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    _plant_cache(monkeypatch, blt.model.incremental, window=1)


def plant_a_window_one_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    _plant_cache(monkeypatch, blt.model.incremental, window=-1)


def plant_a_wider_entropy_window(monkeypatch: pytest.MonkeyPatch) -> None:
    _plant_cache(monkeypatch, blt.entropy.incremental, window=1)


def plant_mixed_rows_in_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """At every other byte, each row takes its neighbour's cache for its own."""
    original = StackSteps.prepare

    def flawed(self: StackSteps, places: StepInputs) -> Any:
        odd = bool(places.positions[0] % 2)
        return original(self, places._replace(rows=places.rows.roll(1)) if odd else places)

    monkeypatch.setattr(StackSteps, "prepare", flawed)


def plant_mixed_rows_in_global_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows whose patch ends are taken for the first rows."""
    original = OpenPatches.pool
    monkeypatch.setattr(
        OpenPatches, "pool", lambda self, rows, **patches: original(self, np.arange(len(rows)), **patches)
    )


def plant_reading_the_previous_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch becomes readable only once the next one has ended."""
    original = ReadablePatches.read

    def flawed(self: ReadablePatches, index: int, states: Tensor, sources: Tensor) -> Tensor:
        slots = sources % (self.num_slots + 1)
        earlier = torch.where(slots == self.num_slots, slots, (slots - 1) % self.num_slots)
        return original(self, index, states, sources - slots + earlier)

    monkeypatch.setattr(ReadablePatches, "read", flawed)


def plant_documents_that_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A BOS is a byte like any other."""
    monkeypatch.setattr(BLTState, "restart", lambda self, rows: None)


def plant_patches_over_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch that runs over a BOS is fed by what stood before it too."""
    original = BLTState.restart

    def flawed(self: BLTState, rows: Any) -> None:
        is_open = self.patch_start[rows] <= self.newest_byte[rows]
        original(self, rows)
        self.patch_start[rows[is_open]] = -1

    monkeypatch.setattr(BLTState, "restart", flawed)


def plant_patches_that_never_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new patch still holds the bytes of the ones before."""
    original = BLTState._complete_patches

    def flawed(self: BLTState, *patches: Any) -> None:
        kept = self.patch_start.copy()
        original(self, *patches)
        self.patch_start = kept

    monkeypatch.setattr(BLTState, "_complete_patches", flawed)


def plant_bytes_before_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first n-grams of a document count what stands before it as some byte."""
    monkeypatch.setattr(blt.model.incremental, "BOE_ID", 7)


def plant_rings_without_room_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read at once overwrites what its first bytes must still see."""
    _plant_cache(monkeypatch, blt.model.incremental, max_rollback=-4)


def plant_patches_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch is not taken back with its last byte."""
    original = BLTState.rewind

    def flawed(self: BLTState, **taken_back: Any) -> None:
        kept = self.newest_patch.copy()
        original(self, **taken_back)
        self.newest_patch = kept

    monkeypatch.setattr(BLTState, "rewind", flawed)


def plant_open_patches_that_stay_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch whose end is taken back begins anew."""
    original = BLTState.rewind

    def flawed(self: BLTState, **taken_back: Any) -> None:
        kept = np.minimum(self.patch_start, self.newest_byte)
        original(self, **taken_back)
        self.patch_start = np.minimum(kept, self.newest_byte)

    monkeypatch.setattr(BLTState, "rewind", flawed)


FLAWS_OF_STEPS = (
    plant_a_window_one_too_wide,
    plant_a_window_one_too_narrow,
    plant_mixed_rows_in_caches,
    plant_mixed_rows_in_global_steps,
    plant_reading_the_previous_patch,
    plant_documents_that_go_on,
    plant_patches_over_documents,
    plant_patches_that_never_empty,
    plant_bytes_before_documents,
)
FLAWS_OF_READING_AHEAD = (
    plant_rings_without_room_ahead,
    plant_patches_that_stay,
    plant_open_patches_that_stay_short,
)
