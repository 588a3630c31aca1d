"""Wrong decoders, each with one flaw that the law of cached steps must notice."""

import dataclasses

import pytest
import torch

import blt.entropy.incremental
import blt.model.incremental
from blt.model import BLTState
from blt.model.open_patch import OpenPatch, ReadablePatch
from blt.nn import GrowingCache, KeyValueCache, LocalConfig, Place, WindowCache
from blt.shapes import Tensor


def _plant_window(monkeypatch: pytest.MonkeyPatch, module: object, change: int) -> None:
    class OffByOne(WindowCache):
        def __init__(self, config: LocalConfig, *, batch: int, like: Tensor) -> None:
            super().__init__(dataclasses.replace(config, window=config.window + change), batch=batch, like=like)

    monkeypatch.setattr(module, "WindowCache", OffByOne)


def plant_a_window_one_too_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    _plant_window(monkeypatch, blt.model.incremental, 1)


def plant_a_window_one_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    _plant_window(monkeypatch, blt.model.incremental, -1)


def plant_a_wider_entropy_window(monkeypatch: pytest.MonkeyPatch) -> None:
    _plant_window(monkeypatch, blt.entropy.incremental, 1)


def plant_mixed_rows_in_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row sees the keys and values of its neighbour."""
    original = KeyValueCache._seen
    monkeypatch.setattr(KeyValueCache, "_seen", lambda self, stored, place: original(self, stored.roll(1, 0), place))


def plant_mixed_rows_in_global_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows whose patch ends are taken for the first rows."""
    original = GrowingCache.advance

    def flawed(self: GrowingCache, rows: Tensor | None = None) -> Place:
        place = original(self, rows)
        return place._replace(rows=torch.arange(len(place.rows)))

    monkeypatch.setattr(GrowingCache, "advance", flawed)


def plant_reading_the_previous_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch becomes readable only once the next one has ended."""
    original = ReadablePatch.write
    last: dict[int, Tensor] = {}

    def flawed(self: ReadablePatch, latents: Tensor, rows: Tensor) -> None:
        previous = torch.stack([last.get(int(row), torch.zeros_like(latents[0])) for row in rows])
        last.update({int(row): latent for row, latent in zip(rows, latents, strict=True)})
        original(self, previous, rows)

    monkeypatch.setattr(ReadablePatch, "write", flawed)


def plant_documents_that_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A BOS is a byte like any other."""
    monkeypatch.setattr(BLTState, "_forget", lambda self, rows: None)


def plant_patches_over_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch that runs over a BOS is fed by the bytes before it too."""
    original = BLTState._forget

    def flawed(self: BLTState, rows: Tensor) -> None:
        kept = self.open_patch.bytes.newest
        original(self, rows)
        self.open_patch.bytes.newest = kept

    monkeypatch.setattr(BLTState, "_forget", flawed)


def plant_patches_that_never_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new patch still holds the bytes of the ones before."""
    monkeypatch.setattr(OpenPatch, "forget", lambda self, rows: None)


def plant_ngrams_across_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first n-grams of a document reach into the one before."""
    original = BLTState._forget

    def flawed(self: BLTState, rows: Tensor) -> None:
        kept = self.preceding
        original(self, rows)
        self.preceding = kept

    monkeypatch.setattr(BLTState, "_forget", flawed)


FLAWS_OF_STEPS = (
    plant_a_window_one_too_wide,
    plant_a_window_one_too_narrow,
    plant_mixed_rows_in_caches,
    plant_mixed_rows_in_global_steps,
    plant_reading_the_previous_patch,
    plant_documents_that_go_on,
    plant_patches_over_documents,
    plant_patches_that_never_empty,
    plant_ngrams_across_documents,
)
