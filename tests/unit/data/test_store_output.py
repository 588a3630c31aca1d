import pytest

import blt.data.store
from blt.data import PrepareConfig, Shards, prepare
from blt.distributed import World
from blt.errors import DataError
from ranks import run_ranks
from stores import TroubledFileSystem, upload

ADDRESS = "troubled://bucket/corpus"
DOCUMENTS = [f"document {number} {'x' * (number % 50)}" for number in range(200)]


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(blt.data.store, "PAUSES", (0.001, 0.002))
    (tmp_path / "a.txt").write_text("\n<|endoftext|>\n".join(DOCUMENTS))
    (tmp_path / "b.txt").write_text("\n<|endoftext|>\n".join(reversed(DOCUMENTS)))
    TroubledFileSystem.reset()
    yield TroubledFileSystem()
    TroubledFileSystem.reset()


def config(tmp_path, out, **options):
    given = {"inputs": (str(tmp_path / "a.txt"), str(tmp_path / "b.txt")), "validation": 0.1, "shard_bytes": 1500}
    return PrepareConfig(**given | {"out": str(out)} | options)


def here(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def there(store):
    return {name.removeprefix("/bucket/corpus/"): store.cat_file(name) for name in store.find("/bucket/corpus")}


def left(tmp_path):
    uploads = tmp_path / "cache" / "blt" / "uploads"
    return sorted(path.name for path in uploads.iterdir()) if uploads.is_dir() else []


def test_the_folder_at_an_address_is_the_one_that_would_be_written_here_and_its_index_comes_last(tmp_path, store):
    prepare(config(tmp_path, tmp_path / "out"))
    summary = prepare(config(tmp_path, ADDRESS))
    assert there(store) == here(tmp_path / "out")
    assert TroubledFileSystem.uploads[-1] == "/bucket/corpus/index.json"
    assert summary.splits["train"]["checksum"] == Shards.open(ADDRESS).checksum
    assert left(tmp_path) == []
    TroubledFileSystem.uploads = []
    assert prepare(config(tmp_path, ADDRESS)).was_already_prepared
    with pytest.raises(DataError, match=rf"{ADDRESS}: was prepared with other seed \(0, now 7\); choose another --out"):
        prepare(config(tmp_path, ADDRESS, seed=7))
    assert TroubledFileSystem.uploads == []


def test_an_upload_that_failed_leaves_no_whole_folder_and_goes_on_where_it_was(tmp_path, store):
    prepare(config(tmp_path, tmp_path / "out"))
    TroubledFileSystem.refused_uploads = ["shard-00003.bin"]
    with pytest.raises(DataError, match=rf"{ADDRESS}/train/shard-00003.bin: may not be written \(PermissionError: Acc"):
        prepare(config(tmp_path, ADDRESS))
    before = list(TroubledFileSystem.uploads)
    assert 5 < len(before) < len(here(tmp_path / "out"))
    with pytest.raises(DataError, match=r"has no index\.json"):
        Shards.open(ADDRESS)
    TroubledFileSystem.refused_uploads, TroubledFileSystem.uploads = [], []
    prepare(config(tmp_path, ADDRESS))
    assert there(store) == here(tmp_path / "out")
    assert not set(before) & set(TroubledFileSystem.uploads)
    assert left(tmp_path) == []


def test_what_was_damaged_before_its_upload_is_prepared_again(tmp_path, store):
    prepare(config(tmp_path, tmp_path / "out"))
    TroubledFileSystem.refused_uploads = ["index.json"]
    with pytest.raises(DataError, match="may not be written"):
        prepare(config(tmp_path, ADDRESS))
    (shard,) = (tmp_path / "cache" / "blt" / "uploads").glob(".*.unfinished/train/shard-00001.bin")
    shard.write_bytes(b"?" + shard.read_bytes()[1:])
    TroubledFileSystem.refused_uploads = []
    prepare(config(tmp_path, ADDRESS))
    assert there(store) == here(tmp_path / "out")


def test_an_old_folder_stops_to_be_one_before_the_new_is_uploaded_and_leaves_nothing(tmp_path, store):
    prepare(config(tmp_path, ADDRESS, shard_bytes=500))
    many = len(there(store))
    TroubledFileSystem.refused_uploads = ["shard-00001.bin"]
    with pytest.raises(DataError, match="may not be written"):
        prepare(config(tmp_path, ADDRESS, overwrite=True))
    with pytest.raises(DataError, match=r"has no index\.json"):
        Shards.open(ADDRESS)
    TroubledFileSystem.refused_uploads = []
    prepare(config(tmp_path, ADDRESS, overwrite=True))
    prepare(config(tmp_path, tmp_path / "out"))
    assert there(store) == here(tmp_path / "out")
    assert len(there(store)) < many
    Shards.open(ADDRESS).verify()


def test_other_files_at_the_address_are_left_alone(tmp_path, store):
    store.pipe_file("/bucket/corpus/thesis.txt", b"mine")
    with pytest.raises(DataError, match=rf"{ADDRESS}: holds 'thesis.txt', which is no file of a prepared folder"):
        prepare(config(tmp_path, ADDRESS))
    assert there(store) == {"thesis.txt": b"mine"}


def test_several_ranks_upload_one_folder(tmp_path, store):
    prepare(config(tmp_path, tmp_path / "out"))

    def work(world):
        TroubledFileSystem.refused_uploads = ["index.json"]
        with pytest.raises(DataError, match=r"may not be written|process 0 could not finish it"):
            prepare(config(tmp_path, ADDRESS), world=world)
        TroubledFileSystem.refused_uploads = []
        if world.is_main:
            before = list(TroubledFileSystem.uploads)
            prepare(config(tmp_path, ADDRESS), world=World())
            assert TroubledFileSystem.uploads[len(before) :] == ["/bucket/corpus/index.json"]
            assert there(TroubledFileSystem()) == here(tmp_path / "out")

    run_ranks(2, work, tmp_path / "ranks")
    assert left(tmp_path) == []


def test_what_is_uploaded_by_hand_is_read_the_same(tmp_path):
    prepare(config(tmp_path, tmp_path / "out"))
    upload(tmp_path / "out", ADDRESS)
    assert prepare(config(tmp_path, ADDRESS)).was_already_prepared
