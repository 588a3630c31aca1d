"""What opening and reading many shards costs, counted in files and memory, so that no clock is needed."""

import sys
import tracemalloc

import pytest
import torch

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


def test_a_batch_of_a_large_corpus_opens_few_files_and_only_those_its_rows_lie_in(folder, opened):
    windows = Windows(Shards.open(folder), sequence_length=64, seed=0)
    opened.clear()
    windows.batch(3, rows=8)
    of_shard = (DOCUMENT + 2) * PER_SHARD
    wanted, num_parts = set(), 0
    for number in range(3 * 8, 4 * 8):
        start = windows.start_of(number)
        of_row = {start // of_shard, (start + 64) % (NUM_SHARDS * of_shard) // of_shard}
        wanted |= of_row
        num_parts += len(of_row)
    assert {int(name[-9:-4]) for name in opened if name.endswith(".bin")} == wanted
    assert sum(name.endswith(".bin") for name in opened) == num_parts
    # Documents of one length lie where they are guessed, so that one part of the ends suffices; where a row begins
    # near the end of that part, the ends after it are read too.
    assert num_parts <= sum(name.endswith(".ends") for name in opened) <= 2 * num_parts
    assert len(opened) == sum(name.endswith((".bin", ".ends")) for name in opened)


def test_a_large_corpus_is_read_as_one_that_is_mapped(folder, monkeypatch):
    read = Windows(Shards.open(folder), sequence_length=64, seed=0)
    monkeypatch.setattr(blt.data.shard_folder, "CHECKED_AT_OPENING", 2**40)
    monkeypatch.setattr(blt.data.shard_folder, "check_files", lambda *arguments, on_file: None)
    mapped = Windows(Shards.open(folder), sequence_length=64, seed=0)
    assert torch.equal(read.batch(5, rows=16).byte_ids, mapped.batch(5, rows=16).byte_ids)


def test_only_so_many_shards_stay_mapped_and_the_others_are_mapped_again(folder, opened, monkeypatch):
    monkeypatch.setattr(blt.data.shard_folder, "MAX_MAPPED_SHARDS", 3)
    monkeypatch.setattr(blt.data.shard_folder, "CHECKED_AT_OPENING", 2**40)
    monkeypatch.setattr(blt.data.shard_folder, "check_files", lambda *arguments, on_file: None)
    shards = Shards.open(folder)
    opened.clear()
    views = [shards.document(number * PER_SHARD) for number in range(5)]
    shards.document(4 * PER_SHARD)
    assert len(opened) == 10
    shards.document(0)
    assert len(opened) == 12
    assert [view.tobytes() for view in views] == [bytes(DOCUMENT)] * 5  # also those whose shard was dropped
