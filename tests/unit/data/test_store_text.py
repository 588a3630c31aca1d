import random

import pytest

import blt.data.store_text
from blt.data.store import Store
from blt.data.store_text import Blocks, StoreText
from stores import TroubledFileSystem

CONTENT = random.Random(0).randbytes(1000)


@pytest.fixture
def text(monkeypatch):
    TroubledFileSystem.reset()
    for name, value in (("BLOCK_BYTES", 16), ("MAX_REQUEST", 128), ("CACHE_BYTES", 200)):
        monkeypatch.setattr(blt.data.store_text, name, value)
    store = Store("troubled://bucket")
    TroubledFileSystem().pipe_file("/bucket/a", CONTENT)
    yield StoreText(Blocks(store), "a", size=len(CONTENT))
    TroubledFileSystem.reset()


def test_any_part_is_that_of_the_file(text):
    rng = random.Random(1)
    for _ in range(300):
        start = rng.randrange(len(CONTENT) + 1)
        stop = min(start + rng.choice([0, 1, 16, 40, 500]), len(CONTENT))
        assert text[start:stop].tobytes() == CONTENT[start:stop]
    assert len(text) == len(CONTENT)
    with pytest.raises(ValueError, match="read-only"):
        text[0:4][0] = 0


def test_a_part_is_one_request_for_whole_blocks_and_none_while_they_are_kept(text):
    assert text[20:70].tobytes() == CONTENT[20:70]
    assert text[33:64].tobytes() == CONTENT[33:64]
    assert [part[1:] for part in TroubledFileSystem.requests] == [(16, 80)]
    text[500:501], text[600:601]
    assert [part[1:] for part in TroubledFileSystem.requests[1:]] == [(496, 512), (592, 608)]


def test_what_is_read_on_is_read_in_ever_longer_requests(text):
    for at in range(0, 1000, 10):
        assert text[at : at + 10].tobytes() == CONTENT[at : at + 10]
    lengths = [stop - start for _, start, stop in TroubledFileSystem.requests]
    assert lengths == [16, 32, 64, 128, 128, 128, 128, 128, 128, 120]


def test_no_more_is_kept_than_there_is_room_for(text):
    for at in range(0, 1000, 48):  # never where the last request ended
        text[at : at + 1]
    blocks = text._blocks
    assert sum(len(block) for block in blocks._kept.values()) == blocks._size <= 200
    count = len(TroubledFileSystem.requests)
    text[960:961]
    assert len(TroubledFileSystem.requests) == count
    text[0:1]
    assert len(TroubledFileSystem.requests) == count + 1
