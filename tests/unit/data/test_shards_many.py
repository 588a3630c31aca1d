"""What opening and reading many shards costs, counted in files and memory, so that no clock is needed."""

import sys
import tracemalloc

import pytest

import blt.data.shard_folder
from blt.data import Shards, Windows
from prepared_folders import write_many_shards

NUM_SHARDS, PER_SHARD, DOCUMENT = 300, 5000, 40

_OPENED = None


def _note(event, arguments):
    if event == "open" and _OPENED is not None:
        _OPENED.append(str(arguments[0]))


sys.addaudithook(_note)


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that Python opens."""
    names = []
    monkeypatch.setattr(sys.modules[__name__], "_OPENED", names)
    return names


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """300 shards of 5,000 documents, as if they were too many to be compared with their checksums at opening."""
    monkeypatch.setattr(blt.data.shard_folder, "CHECKED_AT_OPENING", 0)
    write_many_shards(tmp_path / "many", num_shards=NUM_SHARDS, documents_per_shard=PER_SHARD, document_bytes=DOCUMENT)
    return tmp_path / "many"


def test_opening_reads_the_index_and_the_table_and_no_shard(folder, opened):
    shards = Shards.open(folder)
    assert [name.removeprefix(f"{folder}/") for name in opened] == ["index.json", "train/shards.table"]
    assert shards.num_documents == NUM_SHARDS * PER_SHARD
    assert shards.num_ids == NUM_SHARDS * PER_SHARD * (DOCUMENT + 2)
    assert not shards.is_checked


def peak_of(work):
    tracemalloc.start()
    result = work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return result, peak


def test_what_is_held_grows_with_shards_and_not_with_documents(folder):
    Shards.open(folder)  # what is imported and cached once
    shards, peak = peak_of(lambda: Shards.open(folder))
    assert peak < 300 * NUM_SHARDS + 50_000 < PER_SHARD * NUM_SHARDS // 10
    _, peak = peak_of(lambda: sum(len(shards.ids(at, at + 99)) for at in range(0, shards.num_ids, 10**6)))
    assert peak < 500_000
    windows, peak = peak_of(lambda: Windows(shards, sequence_length=64, seed=0))
    assert peak < 50_000
    windows.batch(0, rows=4)
    _, peak = peak_of(lambda: [windows.batch(step, rows=4).lengths for step in (10**5, 10**6, 10**9)])
    assert peak < 300_000 < windows.num_windows


def test_a_batch_opens_the_shards_that_its_rows_lie_in_and_opens_them_once(folder, opened):
    windows = Windows(Shards.open(folder), sequence_length=64, seed=0)
    opened.clear()
    windows.batch(3, rows=8)
    of_shard = (DOCUMENT + 2) * PER_SHARD
    wanted = set()
    for number in range(3 * 8, 4 * 8):
        start = windows.start_of(number)
        wanted |= {start // of_shard, (start + 64) % (NUM_SHARDS * of_shard) // of_shard}
    assert len(opened) == 2 * len(wanted)
    assert {int(name[-9:-4]) for name in opened if name.endswith(".bin")} == wanted
    opened.clear()
    windows.batch(3, rows=8)
    assert opened == []


def test_only_so_many_shards_stay_mapped_and_the_others_are_mapped_again(folder, opened, monkeypatch):
    monkeypatch.setattr(blt.data.shard_folder, "MAX_MAPPED_SHARDS", 3)
    shards = Shards.open(folder)
    opened.clear()
    views = [shards.document(number * PER_SHARD) for number in range(5)]
    shards.document(4 * PER_SHARD)
    assert len(opened) == 10
    shards.document(0)
    assert len(opened) == 12
    assert [view.tobytes() for view in views] == [bytes(DOCUMENT)] * 5  # also those whose shard was dropped
