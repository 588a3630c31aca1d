"""Wrong decoders, each with one flaw that the law of cached steps must notice."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import blt.model.incremental
import blt.nn.transformer
from blt.entropy import EntropyConfig
from blt.model import BLTState
from blt.model.layout import StepLayout
from blt.model.states import DecoderState, EncoderState
from blt.nn import KeyValueCache, LocalConfig, StepInputs, TransformerConfig


def _plant_cache(
    monkeypatch: pytest.MonkeyPatch, *, of_entropy_model: bool = False, window: int = 0, max_rollback: int = 0
) -> None:
    class Flawed(KeyValueCache):
        def __init__(self, config: TransformerConfig, **options: Any) -> None:
            if isinstance(config, LocalConfig) and isinstance(config, EntropyConfig) == of_entropy_model:
                config = dataclasses.replace(config, window=config.window + window)
                options["max_rollback"] += max_rollback
            super().__init__(config, **options)

    monkeypatch.setattr(blt.nn.transformer, "KeyValueCache", Flawed)


def plant_a_window_one_too_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    _plant_cache(monkeypatch, window=1)


def plant_a_window_one_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    _plant_cache(monkeypatch, window=-1)


def plant_a_wider_entropy_window(monkeypatch: pytest.MonkeyPatch) -> None:
    _plant_cache(monkeypatch, of_entropy_model=True, window=1)


def plant_mixed_rows_in_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """At every other byte, each row takes its neighbour's cache for its own."""
    original = KeyValueCache.attends

    def flawed(self: KeyValueCache, inputs: Any, pattern: Any) -> Any:
        odd = isinstance(inputs, StepInputs) and len(inputs.rows) > 0 and bool(inputs.positions[0, 0] % 2)
        return original(self, inputs._replace(rows=inputs.rows.roll(1)) if odd else inputs, pattern)

    monkeypatch.setattr(KeyValueCache, "attends", flawed)


def plant_mixed_rows_in_global_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows whose patch ends are taken for the first rows."""
    original = EncoderState.update

    def flawed(self: EncoderState, byte_states: Any, layout: Any) -> Any:
        if isinstance(layout, StepLayout):
            first = torch.arange(len(layout.patches.rows))
            layout = dataclasses.replace(layout, patches=layout.patches._replace(rows=first))
        return original(self, byte_states, layout)

    monkeypatch.setattr(EncoderState, "update", flawed)


def plant_reading_the_previous_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch becomes readable only once the next one has ended."""
    original = DecoderState.update

    def flawed(self: DecoderState, index: int, completed: Any, layout: Any) -> Any:
        if isinstance(layout, StepLayout):
            sources = layout.read_from
            slots = sources % (self.num_slots + 1)
            earlier = torch.where(slots == self.num_slots, slots, (slots - 1) % self.num_slots)
            layout = dataclasses.replace(layout, read_from=sources - slots + earlier)
        return original(self, index, completed, layout)

    monkeypatch.setattr(DecoderState, "update", flawed)


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
    original = BLTState._lay_out_step

    def flawed(self: BLTState, *of_step: Any) -> Any:
        kept = self.patch_start.copy()
        layout = original(self, *of_step)
        self.patch_start = kept
        return layout

    monkeypatch.setattr(BLTState, "_lay_out_step", flawed)


def plant_bytes_before_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first n-grams of a document count what stands before it as some byte."""
    monkeypatch.setattr(blt.model.incremental, "BOE_ID", 7)


def plant_rings_without_room_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read at once overwrites what its first bytes must still see."""
    _plant_cache(monkeypatch, max_rollback=-4)


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
