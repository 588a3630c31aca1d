import gc
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blt.data.checked_files
import blt.data.shard
import blt.data.shard_folder
from blt.codec import encode
from blt.data import PrepareConfig, Shards, Windows, prepare
from blt.data.mapping import map_file
from blt.data.shard import Shard
from blt.errors import DataError
from prepared_folders import as_version_1, change_table

corpora = st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=12)


def stream_of(documents):
    return np.concatenate([encode(document, bos=True, eos=True).numpy() for document in documents])


@given(corpora, st.data())
@settings(max_examples=100, deadline=None)
def test_any_slice_of_the_id_stream_is_bos_bytes_eos_of_every_document(documents, data):
    shards = Shards.from_documents(documents)
    stream = stream_of(documents)
    assert shards.num_ids == len(stream)
    start = data.draw(st.integers(0, len(stream)))
    stop = data.draw(st.integers(start, len(stream)))
    assert shards.ids(start, stop).tolist() == stream[start:stop].tolist()
    assert shards.ids(start, stop).dtype == np.int64


@given(corpora)
@settings(max_examples=50, deadline=None)
def test_documents_come_back_and_their_bos_stands_at_their_offset(documents):
    shards = Shards.from_documents(documents)
    assert [shards.document(i).tobytes() for i in range(shards.num_documents)] == documents
    offsets = shards.id_offsets(0, shards.num_documents).tolist()
    assert all(shards.ids(at, at + 1) == [1] for at in offsets[:-1])
    assert offsets[-1] == shards.num_ids
    assert [shards.id_offset(number) for number in range(len(offsets))] == offsets


def cut_into_shards(documents, per_shard):
    groups = [documents[i : i + per_shard] for i in range(0, len(documents), per_shard)]
    return Shards.of(
        [
            Shard(text=np.frombuffer(b"".join(group), np.uint8), ends=np.cumsum([len(document) for document in group]))
            for group in groups
        ]
    )


@given(corpora, st.integers(1, 5), st.data())
@settings(max_examples=100, deadline=None)
def test_slices_and_offsets_across_shards_are_those_of_one_shard(documents, per_shard, data):
    whole, cut = Shards.from_documents(documents), cut_into_shards(documents, per_shard)
    start = data.draw(st.integers(0, whole.num_ids))
    stop = data.draw(st.integers(start, whole.num_ids))
    assert cut.ids(start, stop).tolist() == whole.ids(start, stop).tolist()
    first = data.draw(st.integers(0, len(documents)))
    last = data.draw(st.integers(first, len(documents)))
    assert cut.id_offsets(first, last).tolist() == whole.id_offsets(first, last).tolist()
    assert [cut.id_offset(number) for number in (first, last)] == whole.id_offsets(first, last)[[0, -1]].tolist()


@given(
    st.lists(st.sampled_from([1, 2, 3, 50, 100_000]), min_size=1, max_size=400),
    st.booleans(),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_documents_of_very_unequal_lengths_are_found(lengths, is_sorted, data):
    lengths = sorted(lengths) if is_sorted else lengths
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blt.data.shard, "_SEARCHED", data.draw(st.sampled_from([1, 2, 7])))
        shards = Shards.from_documents([bytes(length) for length in lengths])
        starts = np.cumsum([0, *(length + 2 for length in lengths)]).tolist()
        for number in data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=20)):
            assert shards.ids(starts[number], starts[number] + 2).tolist() == [1, 4]
            assert shards.ids(starts[number + 1] - 2, starts[number + 1]).tolist() == [4, 2]


def test_the_search_for_a_document_ends_soon_whatever_the_lengths():
    """Guesses alone would creep through 100,000 tiny documents that follow a huge one."""

    class Counted:
        def __init__(self, ends):
            self.ends, self.count = ends, 0

        def __len__(self):
            return len(self.ends)

        def __getitem__(self, part):
            self.count += 1
            return self.ends[part]

    ends = Counted(np.concatenate([[10**9], 10**9 + np.arange(1, 10**6)]))
    text = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (int(ends.ends[-1]),), (0,))
    shard = Shard(text=text, ends=ends)
    assert shard.ids(10**9 + 2 + 3 * 500_000, 10**9 + 2 + 3 * 500_000 + 3).tolist() == [1, 4, 2]
    assert ends.count <= 2 * np.log2(10**6 / 1024) + 3


@given(corpora, st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_cutting_into_shards_changes_nothing_that_is_read(documents, per_shard):
    whole = Shards.from_documents(documents)
    cut = cut_into_shards(documents, per_shard)
    assert cut.ids(0, cut.num_ids).tolist() == whole.ids(0, whole.num_ids).tolist()
    assert cut.checksum == whole.checksum
    assert [cut.document(i).tobytes() for i in range(cut.num_documents)] == documents


@given(st.lists(corpora, min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
def test_joined_splits_are_read_one_after_another(splits):
    parts = [Shards.from_documents(documents) for documents in splits]
    joined = Shards.join(parts)
    stream = np.concatenate([part.ids(0, part.num_ids) for part in parts])
    assert joined.ids(0, joined.num_ids).tolist() == stream.tolist()
    for part, documents in zip(joined.parts, splits, strict=True):
        assert joined.ids(part.ids.start, part.ids.stop).tolist() == stream_of(documents).tolist()
        assert [joined.document(number).tobytes() for number in part.documents] == documents
    assert Shards.join([parts[0]]).checksum == parts[0].checksum
    assert len({Shards.join([parts[0]] * count).checksum for count in (1, 2, 3)}) == 3


def test_the_checksum_tells_boundaries_and_order_apart():
    corpora = ([b"ab", b"c"], [b"a", b"bc"], [b"c", b"ab"], [b"abc"])
    assert len({Shards.from_documents(documents).checksum for documents in corpora}) == 4


def test_empty_documents_are_dropped_and_nothing_else_is_refused():
    assert Shards.from_documents([b"", b"a", b""]).num_documents == 1
    with pytest.raises(DataError, match="no documents"):
        Shards.from_documents([b""])


@pytest.mark.parametrize("bad", [(-1, 2), (0, 5), (3, 2)])
def test_slices_outside_the_stream_are_refused(bad):
    with pytest.raises(IndexError, match="reach outside the stream of 4 ids"):
        Shards.from_documents([b"ab"]).ids(*bad)


@pytest.mark.parametrize("bad", [-1, 1])
def test_documents_that_are_not_there_are_refused(bad):
    with pytest.raises(IndexError, match="is none of the 1 documents"):
        Shards.from_documents([b"ab"]).document(bad)


def test_a_folder_that_is_missing_foreign_or_a_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        Shards.open(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"has no index\.json"):
        Shards.open(tmp_path)
    file = tmp_path / "index.json"
    file.write_text("{")
    with pytest.raises(DataError, match="is a file"):
        Shards.open(file)
    with pytest.raises(DataError, match="is not JSON"):
        Shards.open(tmp_path)
    file.write_text(json.dumps({"weight_map": {}}))
    with pytest.raises(DataError, match="is no index of blt-shards"):
        Shards.open(tmp_path)
    file.write_text(json.dumps({"format": "blt-shards", "version": 99}))
    with pytest.raises(DataError, match="has version 99, this blt reads up to 2"):
        Shards.open(tmp_path)
    file.write_text(json.dumps({"format": "blt-shards", "version": 1, "splits": {"train": {"num_documents": 3}}}))
    with pytest.raises(DataError, match="is damaged"):
        Shards.open(tmp_path)


DOCUMENTS = [f"document {number}".encode() for number in range(20)]


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A folder of three shards, and a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.txt").write_bytes(b"\n<|endoftext|>\n".join(DOCUMENTS))
    config = PrepareConfig(inputs=(str(tmp_path / "a.txt"),), out=str(tmp_path / "data"), validation=0.0)
    prepare(PrepareConfig(**vars(config) | {"shard_bytes": 80}))
    return tmp_path / "data"


def flip(path):
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["shard-00001.bin", "shard-00001.ends"])
def test_a_shard_that_is_not_what_the_index_says_is_refused_where_it_is_opened(prepared, name):
    Shards.open(prepared)
    flip(prepared / "train" / name)
    with pytest.raises(DataError, match=rf"{name}: (has changed|does not fit)"):
        Shards.open(prepared)


@pytest.mark.parametrize("value", [10**6, -7, 0, 20])
def test_ends_that_no_documents_have_are_refused(prepared, value):
    path = prepared / "train" / "shard-00000.ends"
    ends = np.fromfile(path, "<i8")
    assert ends[1] == 20
    ends[2] = value
    ends.tofile(path)
    with pytest.raises(DataError, match=r"shard-00000.ends: has changed"):
        Shards.open(prepared)
    sha256 = np.frombuffer(hashlib.sha256(path.read_bytes()).digest(), np.uint8)

    def agree(table):
        table["ends_sha256"][0] = sha256

    change_table(prepared, agree)
    shards = Shards.open(prepared)
    for read in (lambda: shards.ids(0, 80), lambda: shards.document(2), lambda: shards.id_offsets(0, 4), shards.verify):
        with pytest.raises(DataError, match=r"shard-00000.ends: does not fit its shard"):
            read()


def test_what_was_compared_once_is_not_read_again_until_it_changes(prepared, monkeypatch):
    compared = []

    def count():
        compared.append(1)
        Shards.open(prepared, on_file=lambda: compared.append(1))
        found = len(compared) - 1
        compared.clear()
        return found

    num_files = len(list(prepared.glob("train/shard-*")))
    assert [count(), count()] == [num_files, num_files]  # too new to be remembered
    monkeypatch.setattr(blt.data.checked_files, "_SETTLED_SECONDS", -1.0)
    assert [count(), count()] == [num_files, 0]
    path = prepared / "train" / "shard-00001.bin"
    os.utime(path, ns=(1, 1))
    assert [count(), count()] == [1, 0]
    flip(path)
    with pytest.raises(DataError, match="has changed"):
        Shards.open(prepared)


def test_a_memory_that_is_damaged_or_cannot_be_written_only_costs_time(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(blt.data.checked_files, "_SETTLED_SECONDS", -1.0)
    Shards.open(prepared)
    (memory,) = (tmp_path / "cache" / "blt" / "checked").iterdir()
    for content in (b"[", b"[]", b"\xff", b'{"train/shard-00000.bin": 3}'):
        memory.write_bytes(content)
        assert Shards.open(prepared).num_documents == 20
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert Shards.open(prepared).num_documents == 20


@pytest.mark.parametrize("name", ["../other.bin", "/etc/passwd", "a\0b", "a\ud800b", "train/shard-00001.bin", 3, None])
def test_an_index_names_its_own_shards_and_no_other_files(prepared, name):
    as_version_1(prepared)
    path = prepared / "index.json"
    index = json.loads(path.read_text())
    index["splits"]["train"]["shards"][0]["file"] = name
    path.write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"index.json: is damaged \(TypeError: its shard is"):
        Shards.open(prepared)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "1" + "0" * 5000, "\0", ""])
def test_an_index_that_is_too_deep_or_no_json_is_refused(prepared, content):
    (prepared / "index.json").write_text(content)
    with pytest.raises(DataError, match=r"index.json: is not JSON"):
        Shards.open(prepared)


def test_a_folder_of_the_first_version_is_read_as_before(prepared):
    now = Shards.open(prepared)
    as_version_1(prepared)
    shards = Shards.open(prepared)
    shards.verify()
    assert shards.num_shards == now.num_shards == 3
    assert shards.checksum == now.checksum
    assert shards.ids(0, shards.num_ids).tolist() == now.ids(0, now.num_ids).tolist()


def fewer_documents(table):
    table["num_documents"][0] -= 1


def shards_of_no_bytes(table):
    table["num_bytes"][:2] = [0, table["num_bytes"][:2].sum()]


def sizes_beyond_all_bounds(table):
    table["num_bytes"][:] = 2**62


@pytest.mark.parametrize("change", [fewer_documents, shards_of_no_bytes, sizes_beyond_all_bounds])
def test_a_table_that_does_not_fit_the_index_is_refused(prepared, change):
    change_table(prepared, change)
    with pytest.raises(DataError, match=r"train/shards\.table: does not fit index\.json"):
        Shards.open(prepared)


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: content * 2])
def test_a_table_that_has_changed_or_is_missing_is_refused(prepared, damage):
    path = prepared / "train" / "shards.table"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"shards\.table: has changed"):
        Shards.open(prepared)
    path.unlink()
    with pytest.raises(DataError, match=r"shards\.table: missing"):
        Shards.open(prepared)


def test_a_folder_that_is_prepared_anew_while_it_is_read_is_never_mixed_with_the_old(prepared, tmp_path):
    shards = Shards.open(prepared)
    (tmp_path / "b.txt").write_bytes((tmp_path / "a.txt").read_bytes().replace(b"document", b"DOCUMENT"))
    new = PrepareConfig(inputs=(str(tmp_path / "b.txt"),), out=str(prepared), validation=0.0, overwrite=True)
    prepare(PrepareConfig(**vars(new) | {"shard_bytes": 80}))
    assert shards.document(0).tobytes() == DOCUMENTS[0]  # mapped before
    shards._source._opened._kept.clear()
    with pytest.raises(DataError, match="was prepared anew while it was read; start again"):
        shards.document(0)


def test_a_large_folder_that_is_prepared_anew_is_not_read_on_and_one_that_is_damaged_is_told(
    prepared, tmp_path, monkeypatch
):
    monkeypatch.setattr(blt.data.shard_folder, "CHECKED_AT_OPENING", 0)
    shards = Shards.open(prepared)
    assert shards.document(0).tobytes() == DOCUMENTS[0]
    with pytest.raises(ValueError, match="read-only"):
        shards.document(0)[0] = 0
    text = prepared / "train" / "shard-00000.bin"
    whole = text.read_bytes()
    text.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=rf"{text}: has {len(whole) - 1} bytes, index.json says {len(whole)}"):
        shards.document(0)
    text.unlink()
    with pytest.raises(DataError, match=f"{text}: missing, though index.json lists it"):
        shards.document(0)
    text.mkdir()
    with pytest.raises(DataError, match=f"{text}: cannot be read"):
        shards.document(0)
    index = (prepared / "index.json").read_bytes()
    (prepared / "index.json").write_bytes(index + b" ")
    with pytest.raises(DataError, match="was prepared anew while it was read; start again"):
        shards.document(0)


def test_mappings_end_with_the_shards_and_not_at_some_later_collection(prepared):
    if not Path("/proc/self/maps").is_file():
        pytest.skip("no /proc here")

    def num_mapped():
        return Path("/proc/self/maps").read_text().count(f"{prepared}/train/shard-")

    gc.disable()
    try:
        shards = Shards.open(prepared)
        windows = Windows(shards, sequence_length=8, seed=0)
        windows.batch(0, rows=9)
        assert num_mapped() == 6
        del shards, windows
        assert num_mapped() == 0
    finally:
        gc.enable()


def test_shards_keep_no_file_open(prepared):
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc here")
    before = len(list(Path("/proc/self/fd").iterdir()))
    shards = Shards.open(prepared)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert shards.document(19).tobytes() == DOCUMENTS[19]


def test_more_shards_than_files_may_be_open_can_be_prepared_and_read(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\n<|endoftext|>\n".join(b"document %d" % number for number in range(150)))
    program = """
import resource, sys
from blt.data import PrepareConfig, Shards, Windows, prepare
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
prepare(PrepareConfig(inputs=("a.txt",), out="many", validation=0.0, shard_bytes=1))
shards = Shards.open("many")
print(shards.document(149).tobytes().decode(), shards.num_shards)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("document 149 150\n", "")


def test_a_mapped_file_stays_whole_when_another_takes_its_name_and_cannot_be_written(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"first")
    mapped, stat = map_file(path)
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "other").replace(path)
    part = mapped[1:3]
    del mapped
    gc.collect()
    assert part.tobytes() == b"ir"
    assert stat.st_size == 5
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 0


def test_an_empty_file_is_mapped_too(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert len(map_file(tmp_path / "file")[0]) == 0


def test_a_whole_check_reads_every_file_and_the_checksum(prepared, monkeypatch):
    monkeypatch.setattr(blt.data.shard_folder, "CHECKED_AT_OPENING", 0)
    shards = Shards.open(prepared)
    shards.verify()
    path = prepared / "index.json"
    path.write_text(path.read_text().replace(shards.checksum, 64 * "0"))
    with pytest.raises(DataError, match="the checksum is not that of the documents"):
        Shards.open(prepared).verify()
    flip(prepared / "train" / "shard-00000.bin")
    with pytest.raises(DataError, match="has changed"):
        Shards.open(prepared).verify()
