"""Folders from elsewhere: links out of them, pipes, devices, files without end."""

import os
import threading

import pytest
import torch

from blt.api import ByteLM
from blt.checkpoint import load_headers, load_json, open_plain, read_plain, save_tensors
from blt.errors import ModelFolderError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def make_pipe(path):
    os.mkfifo(path)


def make_device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_pipe, make_device, lambda path: path.mkdir()])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "entropy.safetensors"])
def test_what_is_no_plain_file_is_told_at_once(tiny_folder, make, name):
    (tiny_folder / name).unlink()
    make(tiny_folder / name)
    with pytest.raises(
        ModelFolderError, match=rf"{name}: is (no plain file|a link to another folder|a folder)|no such"
    ):
        ByteLM.from_pretrained(tiny_folder)


@pytest.mark.parametrize("make", [make_pipe, make_device, lambda path: path.mkdir()])
def test_a_card_that_is_no_plain_file_does_not_keep_a_model_from_loading(tiny_folder, make):
    make(tiny_folder / "README.md")
    with pytest.warns(UserWarning, match=r"README\.md: is .*; the model goes without its card"):
        assert ByteLM.from_pretrained(tiny_folder).card == ""


def test_a_link_out_of_a_folder_is_not_copied_into_what_is_saved(tiny_folder, tmp_path):
    (tmp_path / "secret").write_text("SECRET KEY")
    (tiny_folder / "README.md").symlink_to("../secret")
    with pytest.warns(UserWarning, match="is a link to another folder, which is not followed"):
        lm = ByteLM.from_pretrained(tiny_folder)
    lm.save_pretrained(tmp_path / "copy")
    assert not (tmp_path / "copy" / "README.md").exists()


def test_a_card_without_end_is_not_read(tiny_folder):
    (tiny_folder / "README.md").write_text("a card")
    assert ByteLM.from_pretrained(tiny_folder).card == "a card"
    os.truncate(tiny_folder / "README.md", 3 * 2**30)
    with pytest.warns(UserWarning, match="3,221,225,472 bytes; at most 1,048,576 are read"):
        assert ByteLM.from_pretrained(tiny_folder).card == ""


def test_links_within_a_folder_and_those_of_the_hub_s_cache_are_followed(tmp_path):
    blobs, snapshot = tmp_path / "models--me--tiny" / "blobs", tmp_path / "models--me--tiny" / "snapshots" / "abc"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    (blobs / "0123").write_text("{}")
    (tmp_path / "outside.json").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/0123")
    (snapshot / "other.json").symlink_to("config.json")
    (snapshot / "bad.json").symlink_to("../../../outside.json")
    assert load_json(snapshot / "config.json") == load_json(snapshot / "other.json") == {}
    with pytest.raises(ModelFolderError, match=r"bad\.json: is a link to another folder"):
        load_json(snapshot / "bad.json")


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_tensors(path, {"a": torch.ones(2)})

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    for read in (load_headers, load_json, open_plain):
        with pytest.raises(ModelFolderError) as error:
            read(path)
        assert str(error.value) == f"{path}: cannot be read (Permission denied)"


def test_a_pointer_of_git_lfs_is_called_what_it_is(tiny_folder):
    for name in ("model.safetensors", "config.json"):
        (tiny_folder / name).write_bytes(POINTER)
        with pytest.raises(ModelFolderError, match=rf"{name}: a Git LFS pointer, .* run `git lfs pull`"):
            ByteLM.from_pretrained(tiny_folder)


def test_no_more_is_read_than_allowed(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_plain(tmp_path / "a", max_bytes=5) == b"12345"
    with pytest.raises(ModelFolderError, match="5 bytes; at most 4 are read"):
        read_plain(tmp_path / "a", max_bytes=4)


def test_who_loads_a_model_while_it_is_saved_gets_one_of_the_two(tiny_lm, tmp_path):
    is_over, is_loaded, seen = threading.Event(), threading.Event(), set()
    name = "blt.hash_embedding.bytes.weight"

    def save(number):
        for weight in tiny_lm.state_dict().values():
            weight.fill_(number)
        tiny_lm.card = str(number)
        tiny_lm.save_pretrained(tmp_path / "m", max_shard_bytes=20_000)

    def load_often():
        while not is_over.is_set():
            lm = ByteLM.from_pretrained(tmp_path / "m")
            seen.add((float(lm.card), *(float(weight.flatten()[0]) for weight in lm.state_dict().values())))
            is_loaded.set()

    assert name in tiny_lm.state_dict()
    save(0)
    reader = threading.Thread(target=load_often)
    reader.start()
    for number in range(1, 12):
        if number % 4 == 0:  # who loads gives up where the folder is replaced each time that it is read
            is_loaded.clear()
            assert is_loaded.wait(timeout=60)
        save(number)
    is_over.set()
    reader.join()
    assert seen
    assert all(len(set(numbers)) == 1 for numbers in seen)
