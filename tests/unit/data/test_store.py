import builtins
import io
from pathlib import Path

import pytest

import blt.data.store
from blt.data.store import MissingFileError, Store, StoreStream, is_address, local_path
from blt.errors import DataError, MissingExtraError
from stores import TroubledFileSystem, upload


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    TroubledFileSystem.reset()
    monkeypatch.setattr(blt.data.store, "PAUSES", (0.001, 0.002))
    yield
    TroubledFileSystem.reset()


@pytest.mark.parametrize(
    "name", ["s3://bucket/a", "gs://b", "memory://x", "simplecache::s3://b/c", "hf://datasets/a/b"]
)
def test_an_address_is_told_from_a_path(name):
    assert is_address(name)


@pytest.mark.parametrize("name", ["data/mine", "/data", "C:\\data", "file:///data", "local:///data", "a:b", "-"])
def test_a_path_is_no_address_and_file_stands_for_one(name):
    assert not is_address(name)
    assert local_path(name) == Path("/data" if name.endswith(":///data") else name)


@pytest.mark.parametrize("kind", ["troubled", "file"])
def test_a_file_is_read_whole_in_parts_and_as_a_stream(monkeypatch, tmp_path, kind):
    monkeypatch.setattr(blt.data.store, "_CHUNK", 4)
    address = f"file://{tmp_path}/corpus" if kind == "file" else "troubled://bucket/corpus"
    (tmp_path / "corpus" / "train").mkdir(parents=True)
    (tmp_path / "corpus" / "train" / "a").write_bytes(b"0123456789")
    upload(tmp_path / "corpus", "troubled://bucket/corpus")
    store = Store(f"{address}/")
    assert (store.read("train/a"), store.read_part("train/a", 3, 6), store.size("train/a")) == (
        b"0123456789",
        b"345",
        10,
    )
    assert list(store.parts("train/a")) == [b"0123", b"4567", b"89"]
    assert io.BufferedReader(StoreStream(f"{address}/train/a")).read() == b"0123456789"
    with pytest.raises(MissingFileError, match=f"{address}/train/b: does not exist"):
        store.read("train/b")


def new_store(content):
    TroubledFileSystem().pipe_file("/bucket/a", content)
    return Store("troubled://bucket")


def test_a_part_that_comes_short_is_told():
    store = new_store(b"0123")
    with pytest.raises(DataError, match=r"troubled://bucket/a: 2 bytes came from 2 on, of 5; upload it again"):
        store.read_part("a", 2, 7)


def test_a_request_that_fails_twice_is_made_again_and_works():
    store = new_store(b"content")
    TroubledFileSystem.failures = [OSError("connection reset"), TimeoutError()]
    assert store.read("a") == b"content"
    assert len(TroubledFileSystem.requests) == 3


def test_a_store_that_always_fails_is_told_in_one_line_after_some_tries():
    store = new_store(b"content")

    class ClientError(Exception):
        """As packages of stores have them."""

    TroubledFileSystem.failures = [ClientError("no route")] * 9
    told = r"troubled://bucket/a: cannot be read \(3 tries failed, ClientError: no route\); check the connection"
    with pytest.raises(DataError, match=told):
        store.read("a")
    assert len(TroubledFileSystem.requests) == 3


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (
            PermissionError("Access Denied"),
            r"bucket/a: may not be read \(PermissionError: Access Denied\); check the cre",
        ),
        (ValueError("bad name"), r"bucket/a: cannot be read \(ValueError: bad name\); check the address"),
        (FileNotFoundError(), "bucket/a: does not exist; check the address"),
    ],
)
def test_what_another_try_would_meet_again_is_told_at_once(failure, told):
    TroubledFileSystem.failures = [failure]
    with pytest.raises(DataError, match=told):
        Store("troubled://bucket").read("a")
    assert len(TroubledFileSystem.requests) == 1


def test_an_interrupt_is_no_failure_of_the_store():
    TroubledFileSystem.failures = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        Store("troubled://bucket").read("a")


def test_a_store_of_no_known_kind_is_refused():
    with pytest.raises(DataError, match="nonsense://a: is no address of a store"):
        Store("nonsense://a")


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    real = builtins.__import__

    def without_fsspec(name, *rest, **options):
        if name.partition(".")[0] == "fsspec":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_fsspec)
    told = r"reading s3://a/b needs the package 'fsspec': pip install 'blt-llm\[store\]'"
    with pytest.raises(MissingExtraError, match=told):
        Store("s3://a/b")


def test_the_package_of_a_store_that_is_missing_is_named(monkeypatch):
    import fsspec.core

    def missing(address):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(DataError, match="s3://a/b: its store needs a package that is not installed: pip install s3fs"):
        Store("s3://a/b")
