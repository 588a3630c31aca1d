import gzip
import json

import pytest
import torch

import blt.data.store
import blt.data.store_folder
from blt.cli import main
from blt.data import PrepareConfig, Shards, Windows, prepare
from blt.errors import DataError
from prepared_folders import as_version_1
from stores import TroubledFileSystem, upload

DOCUMENTS = [f"document {number} {'x' * (number % 50)}".encode() for number in range(300)]
ADDRESS = "troubled://bucket/corpus"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A prepared folder of several shards, here and at an address."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(blt.data.store, "PAUSES", (0.001, 0.002))
    TroubledFileSystem.reset()
    (tmp_path / "a.txt").write_bytes(b"\n<|endoftext|>\n".join(DOCUMENTS))
    out = tmp_path / "data"
    prepare(PrepareConfig(inputs=(str(tmp_path / "a.txt"),), out=str(out), validation=0.1, shard_bytes=3000))
    upload(out, ADDRESS)
    yield out
    TroubledFileSystem.reset()


@pytest.mark.parametrize("address", [ADDRESS, "file", "memory://bucket/corpus"])
def test_batches_documents_and_checksum_are_those_of_the_local_folder(folder, address):
    address = f"file://{folder}" if address == "file" else address
    if address.startswith("memory"):
        upload(folder, address)
    for split in ("train", "validation"):
        here, there = Shards.open(folder, split=split), Shards.open(address, split=split)
        assert there.checksum == here.checksum == there.compute_checksum()
        assert there.num_shards == here.num_shards
        windows = [Windows(shards, sequence_length=32, seed=0) for shards in (here, there)]
        for step in (0, 7, 10**6):
            one, other = (part.batch(step, rows=8) for part in windows)
            assert torch.equal(one.byte_ids, other.byte_ids)
            assert torch.equal(one.targets, other.targets)
        for number in range(here.num_documents):
            assert there.document(number).tobytes() == here.document(number).tobytes()


def test_opening_reads_the_index_and_the_table_alone(folder):
    Shards.open(ADDRESS)
    assert [path for path, *_ in TroubledFileSystem.requests] == [
        "/bucket/corpus/index.json",
        "/bucket/corpus/train/shards.table",
    ]


def test_rows_of_a_batch_are_read_at_the_same_time(folder):
    windows = Windows(Shards.open(ADDRESS), sequence_length=32, seed=0)
    TroubledFileSystem.round_trip = 0.02
    windows.batch(3, rows=8)
    assert TroubledFileSystem.most_at_once >= 4


def test_a_store_that_fails_twice_gives_the_same_batch_and_one_that_always_fails_is_told(folder):
    windows = Windows(Shards.open(ADDRESS), sequence_length=32, seed=0)
    expected = Windows(Shards.open(folder), sequence_length=32, seed=0).batch(5, rows=4)
    TroubledFileSystem.failures = [OSError("reset"), OSError("reset")]
    assert torch.equal(windows.batch(5, rows=4).byte_ids, expected.byte_ids)
    windows = Windows(Shards.open(ADDRESS), sequence_length=32, seed=0)  # which has kept nothing of what was read
    TroubledFileSystem.failures = [OSError("reset")] * 1000
    with pytest.raises(DataError, match=rf"{ADDRESS}/train/shard-0000\d.(bin|ends): cannot be read \(3 tries failed"):
        windows.batch(5, rows=4)


def test_a_mixture_of_a_folder_and_an_address_is_read_as_of_two_folders(folder):
    joined = [Shards.join([Shards.open(folder), Shards.open(place)]) for place in (folder, ADDRESS)]
    one, other = (Windows(shards, sequence_length=32, seed=0).batch(2, rows=8) for shards in joined)
    assert torch.equal(one.byte_ids, other.byte_ids)
    assert joined[1].place == f"{folder} + {ADDRESS}"
    assert not joined[1].is_checked


def test_a_folder_that_is_replaced_while_it_is_read_is_told(folder, monkeypatch):
    shards = Shards.open(ADDRESS)
    shards.document(0)
    TroubledFileSystem().pipe_file("/bucket/corpus/index.json", (folder / "index.json").read_bytes() + b" ")
    assert shards.document(0).tobytes()  # looked at now and then only
    monkeypatch.setattr(blt.data.store_folder, "LOOK_SECONDS", 0.0)
    told = f"{ADDRESS}: was prepared anew while it was read; start again"
    with pytest.raises(DataError, match=told):
        shards.document(0)
    TroubledFileSystem().rm_file("/bucket/corpus/index.json")
    with pytest.raises(DataError, match=told):
        shards.document(0)


def change(name, edit):
    files = TroubledFileSystem()
    files.pipe_file(f"/bucket/corpus/{name}", edit(files.cat_file(f"/bucket/corpus/{name}")))


@pytest.mark.parametrize(
    ("name", "edit", "told"),
    [
        ("index.json", lambda content: content[:-9], "index.json: is not JSON"),
        ("index.json", lambda content: b"{}", "index.json: is no index of blt-shards"),
        ("train/shards.table", lambda content: content[:-1] + b"x", "train/shards.table: has changed"),
    ],
)
def test_what_is_read_in_whole_is_checked_when_it_is_opened(folder, name, edit, told):
    change(name, edit)
    with pytest.raises(DataError, match=told):
        Shards.open(ADDRESS)


def test_a_shard_that_is_cut_short_or_has_no_such_ends_is_told_where_it_is_read(folder):
    change("train/shard-00000.bin", lambda content: content[:100])
    with pytest.raises(DataError, match=r"shard-00000.bin: 100 bytes came from 0 on, of [\d,]+; upload it again"):
        Shards.open(ADDRESS).document(3)
    change("train/shard-00000.ends", lambda content: content[8:16] + content[:8] + content[16:])
    with pytest.raises(DataError, match=r"shard-00000.ends: does not fit its shard"):
        Shards.open(ADDRESS).document(1)


def test_a_check_reads_every_file_and_finds_a_changed_letter(folder, run_cli):
    assert run_cli("prepare", "--check", ADDRESS) == 0
    change("train/shard-00001.bin", lambda content: b"?" + content[1:])
    Shards.open(ADDRESS)
    assert run_cli("prepare", "--check", ADDRESS) == 2


@pytest.fixture
def run_cli(capsys):
    def run(*arguments):
        try:
            main(list(arguments))
        except SystemExit as stop:
            return stop.code or 0
        return 0

    return run


def test_a_folder_that_was_not_uploaded_to_the_end_is_refused(folder):
    TroubledFileSystem().rm_file("/bucket/corpus/index.json")
    with pytest.raises(
        DataError, match=r"has no index.json; expected a folder that `blt prepare` wrote, and that was up"
    ):
        Shards.open(ADDRESS)


def test_a_folder_of_the_first_version_is_read_too(folder):
    now = Shards.open(ADDRESS)
    as_version_1(folder)
    upload(folder, "troubled://bucket/old")
    assert json.loads(TroubledFileSystem().cat_file("/bucket/old/index.json"))["version"] == 1
    old = Shards.open("troubled://bucket/old")
    assert old.ids(0, old.num_ids).tolist() == now.ids(0, now.num_ids).tolist()


def test_inputs_in_a_store_are_prepared_as_if_they_were_here(tmp_path, folder):
    packed = gzip.compress("".join(json.dumps({"text": text.decode()}) + "\n" for text in DOCUMENTS).encode())
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.jsonl.gz").write_bytes(packed)
    upload(tmp_path / "here", "troubled://bucket/inputs")
    for name, given in (("one", tmp_path / "here" / "a.jsonl.gz"), ("other", "troubled://bucket/inputs/a.jsonl.gz")):
        prepare(PrepareConfig(inputs=(str(given),), out=str(tmp_path / name)))
    one, other = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "other")
    )
    assert one == other
    with pytest.raises(DataError, match=r"troubled://bucket/inputs/b.txt: does not exist; check the address"):
        prepare(PrepareConfig(inputs=("troubled://bucket/inputs/b.txt",), out=str(tmp_path / "third")))
