"""A short pass of `tests/compress_everywhere.py`, which walks more."""

import pytest

from blt.compression import decompress
from compress_everywhere import made_up, small_model, walk_animal, walk_faults

ZOO = made_up(300)


@pytest.fixture(scope="module")
def lm():
    return small_model()


@pytest.mark.parametrize("name", ZOO)
def test_every_kind_of_file_is_restored_on_any_number_of_threads(lm, name):
    walk_animal(lm, ZOO[name], learn=len(ZOO[name]) % 2 == 0)


@pytest.mark.parametrize("learn", [False, True])
def test_every_fault_is_noticed(lm, learn):
    tried = walk_faults(lm, learn=learn, count=20, size=60)
    assert set(tried) == {"flip", "cut", "swap", "swap, described", "swap of pieces"}
    assert tried.total() == 20


def test_a_decoder_that_notices_too_little_is_noticed(lm, monkeypatch):
    found = []

    def careless(lm, archive):
        """Return what the whole file holds, whatever is decoded later."""
        found.append(found[0] if found else decompress(lm, archive))
        return found[0]

    monkeypatch.setattr("compress_everywhere.decompress", careless)
    with pytest.raises(AssertionError, match="not noticed; the output is right"):
        walk_faults(lm, learn=False, count=20, size=60)
