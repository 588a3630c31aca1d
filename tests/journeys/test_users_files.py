"""No command deletes or replaces what is the user's: every case was a report of a file that was gone."""

import json
import os
import stat
import threading

import pytest

from blt.api import ByteLM
from blt.cli import main
from blt.interop import write_transformers
from tiny_training import write_recipe


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.fixture
def refusal(capsys):
    def refused(*arguments):
        capsys.readouterr()
        assert run(*arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("blt: ")
        assert said.count("\n") == 1
        assert ".unfinished" not in said
        return said

    return refused


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_convert_deletes_neither_its_source_nor_what_lies_beside_it(tiny_folder, tiny_lm, tmp_path, refusal):
    repository = tmp_path / "repo"
    write_transformers(tiny_lm, repository / "original")
    (repository / "config.json").write_bytes((repository / "original" / "config.json").read_bytes())
    (repository / "notes.md").write_text("mine")
    before = tree(tmp_path)
    assert "repo: is there and is no model folder of blt" in refusal(
        "convert", repository / "original", "--out", repository
    )
    assert "is no model folder of transformers that blt wrote" in refusal("convert", tiny_folder, "--out", repository)
    assert tree(tmp_path) == before


def test_a_folder_of_transformers_that_blt_did_not_write_stays(tiny_folder, tiny_lm, tmp_path, refusal):
    write_transformers(tiny_lm, tmp_path / "theirs")
    assert run("convert", tiny_folder, "--out", tmp_path / "theirs") == 0  # ours is replaced
    (tmp_path / "theirs" / "generation_config.json").write_text('{"transformers_version": "5.23.0"}')
    assert "is no model folder of transformers that blt wrote" in refusal(
        "convert", tiny_folder, "--out", tmp_path / "theirs"
    )


def test_convert_to_a_link_writes_what_the_link_names(tiny_folder, tmp_path):
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to("place")
    assert run("convert", tiny_folder, "--out", tmp_path / "link") == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "place" / "config.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "place", "tiny"]


@pytest.mark.parametrize("name", ["", " "])
def test_a_model_without_a_name_is_neither_loaded_nor_saved(tiny_lm, name):
    with pytest.raises(ValueError, match="no name of a folder"):
        ByteLM.from_pretrained(name)
    with pytest.raises(ValueError, match="no name of a folder"):
        tiny_lm.save_pretrained(name)


def test_the_folder_that_one_is_in_is_a_model_like_others(tiny_folder, monkeypatch, capsys, tmp_path, refusal):
    monkeypatch.chdir(tiny_folder)
    for name in (".", "./", "../tiny"):
        assert run("generate", "--model", name, "--prompt", "hi", "--max-new", 2) == 0
    assert run("patch", "hi", "--model", ".", "--html", tmp_path / "page.html") == 0
    assert "/config.json: no such file" in refusal("generate", "--model", "/", "--prompt", "a")
    assert "folder that one works in" in refusal(
        "calibrate", "--data", tmp_path / "page.html", "--mean-patch", 2, "--out", "."
    )


def test_saving_keeps_a_card_that_the_user_wrote(tiny_lm, tiny_folder):
    (tiny_folder / "README.md").write_text("my own card")
    tiny_lm.save_pretrained(tiny_folder)
    assert ByteLM.from_pretrained(tiny_folder).card == "my own card"


def test_a_page_replaces_neither_its_input_nor_another_file(tiny_folder, tmp_path, refusal):
    story, notes = tmp_path / "story.html", tmp_path / "notes.txt"
    story.write_text("my only copy of a story")
    notes.write_text("notes")
    (tmp_path / "link.html").symlink_to("notes.txt")
    patch = ("patch", "--model", tiny_folder)
    assert "story.html: is what is read" in refusal(*patch, story, "--html", story)
    assert "is there and is no page" in refusal(*patch, "abc", "--html", notes)
    assert "is there and is no page" in refusal(*patch, "abc", "--html", tmp_path / "link.html")
    assert "is a folder; name a file" in refusal(*patch, "abc", "--html", tmp_path)
    assert "No such file or directory" in refusal(*patch, "abc", "--html", tmp_path / "no" / "page.html")
    assert story.read_text() == "my only copy of a story"
    assert notes.read_text() == "notes"


def test_a_page_goes_into_a_pipe_or_a_device_and_through_a_link_and_keeps_its_mode(tiny_folder, tmp_path):
    patch = ("patch", "abc", "--model", tiny_folder, "--html")
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    assert run(*patch, tmp_path / "pipe") == 0
    reader.join()
    assert got[0].startswith("<!doctype html>")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    (tmp_path / "real.html").write_text("old")
    (tmp_path / "real.html").chmod(0o600)
    (tmp_path / "page.html").symlink_to("real.html")
    assert run(*patch, tmp_path / "page.html") == 0
    assert (tmp_path / "page.html").is_symlink()
    assert (tmp_path / "real.html").read_text().startswith("<!doctype html>")
    assert stat.S_IMODE((tmp_path / "real.html").stat().st_mode) == 0o600
    assert run(*patch, "/dev/null") == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)  # noqa: PTH116
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "pipe", "real.html", "tiny"]


def test_prepare_deletes_neither_an_input_nor_what_it_did_not_write(tmp_path, refusal):
    (tmp_path / "first.txt").write_text("one\n<|endoftext|>\ntwo\n<|endoftext|>\nthree\n")
    data = tmp_path / "data"
    prepare = ("prepare", "--validation", 0, "--overwrite", "--out", data)
    assert run(*prepare, tmp_path / "first.txt") == 0
    assert run(*prepare, tmp_path / "first.txt") == 0
    (data / "more.txt").write_text("my only copy\n")
    before = tree(tmp_path)
    assert "data: is there and is no prepared folder: it holds more.txt" in refusal(*prepare, data / "more.txt")
    assert tree(tmp_path) == before
    (data / "more.txt").unlink()
    (data / "runs").mkdir()
    assert f"it holds runs{os.sep}" in refusal(*prepare, tmp_path / "first.txt")
    (data / "runs").rmdir()
    shard = data / "train" / "shard-00000.bin"
    before = tree(tmp_path)
    assert "holds what is read, train/shard-00000.bin" in refusal(*prepare, "--format", "text", shard)
    assert tree(tmp_path) == before


def test_prepare_does_not_replace_the_folder_that_one_is_in(tmp_path, monkeypatch, refusal):
    (tmp_path / "first.txt").write_text("one\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    said = refusal("prepare", tmp_path / "first.txt", "--validation", 0, "--out", ".")
    assert ".: is the folder that one works in" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.txt", "here"]


def test_train_replaces_no_model_that_it_did_not_write(tiny_lm, tmp_path, refusal):
    recipe = write_recipe(tmp_path)
    model = tmp_path / "run" / "model"
    tiny_lm.save_pretrained(model)
    (model / "notes.txt").write_text("mine")
    train = ("train", recipe, "--device", "cpu")
    for _ in range(2):
        assert "it holds notes.txt, which blt did not write" in refusal(*train)
    (model / "notes.txt").unlink()
    before = tree(model)
    assert "run/model: is there, and no run wrote it; choose another --out" in refusal(*train)
    start = ("--start_from", model, "--blt.model", "none", "--entropy", "none", "--patching", "none")
    assert "run/model: is what is read" in refusal(*train, *start)
    assert tree(model) == before
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["data.json", "start.json", "threshold.json", "blt/paper.tex"])
def test_train_writes_over_no_file_of_the_user_s(tmp_path, refusal, name):
    recipe = write_recipe(tmp_path)
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"mine": 1}))
    assert "is there, and no run wrote it; choose another --out" in refusal("train", recipe, "--device", "cpu")
    assert path.read_text() == '{"mine": 1}'
