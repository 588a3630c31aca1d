"""Pictures of runs and texts from the command line."""

import json
import sys

import pytest

from blt.cli import main


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def write_run(folder, *, last):
    (folder / "blt").mkdir(parents=True)
    rows = [{"step": step, "bytes": 1000 * step, "bits_per_byte": 4 / step, "seconds": step} for step in (1, 2, 3)]
    rows.append({"step": 3, "bytes": 3000, "validation_bits_per_byte": last})
    (folder / "blt" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_several_runs_go_into_one_picture_the_same_whenever_it_is_drawn(tmp_path, capsys):
    first, second = write_run(tmp_path / "first", last=1.25), write_run(tmp_path / "second", last=1.5)
    for out in ("a.svg", "b.svg"):
        assert run("plot", first, second, "--out", tmp_path / out, "--x", "time") == 0
    assert capsys.readouterr().out.splitlines()[0] == str(tmp_path / "a.svg")
    picture = (tmp_path / "a.svg").read_text()
    assert picture == (tmp_path / "b.svg").read_text()
    for words in ("first, held-out 1.250 at the end", "second, held-out 1.500 at the end", "time (h)", "bits per byte"):
        assert words in picture
    assert run("plot", first, "--out", tmp_path / "a.PNG") == 0
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")


def test_runs_of_one_name_are_called_as_they_were_given(tmp_path, capsys):
    folders = [write_run(tmp_path / place / "run", last=1.0) for place in ("x", "y")]
    assert run("plot", *folders, "--out", tmp_path / "a.svg") == 0
    assert all(f"{folder}, held-out" in (tmp_path / "a.svg").read_text() for folder in folders)


def test_texts_are_drawn_from_files_and_arguments(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text("Tom had a ball. 魚 $x$" * 9)
    assert run("plot", "story.txt", "--model", tiny_folder, "--out", "one.svg") == 0
    picture = (tmp_path / "one.svg").read_text()
    assert "story.txt: " in picture
    assert "each point" not in picture
    assert "bytes per patch" in picture
    assert "entropy of the next byte (nats)" in picture
    assert run("plot", "story.txt", "a dog", "a cat", "--model", tiny_folder, "--out", "three.png", "--limit", 50) == 0
    assert (tmp_path / "three.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a text", "--out", "x.pdf"], "--out x.pdf: give a name that ends in .png or .svg"),
        (["a text", "--out", "x"], "ends in .png or .svg"),
        (["a text", "--out", "folder.png"], "folder.png: is a folder"),
        (["pic.svg", "--out", "pic.svg"], "pic.svg: is what is read"),
        (["run", "a text", "--out", "x.png"], "runs and texts do not go into one picture"),
        (["empty", "--out", "x.png"], "empty: holds no metrics of a stage 'blt'"),
        (["run", "--out", "x.png", "--stage", "entropy"], "run: holds no metrics of a stage 'entropy'"),
        (["run", "--out", "x.png", "--x", "flops"], "recipe.json: no such file"),
        (["run", "--out", "x.png", "--limit", "3"], "--limit: is for texts"),
        (["run", "--out", "x.png", "--mean-patch", "3"], "--mean-patch: is for --x flops"),
        (["a text", "--out", "x.png", "--x", "time"], "--x: is for run folders"),
        (["", "--out", "x.png"], "cannot be a name"),
        (["--out", "x.png"], "Missing argument"),
        (["a text"], "Missing option '--out'"),
        (["run", "--out", "missing/x.png"], "missing/x.png: "),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line(tiny_folder, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", last=1.0)
    for name in ("empty", "folder.png"):
        (tmp_path / name).mkdir()
    (tmp_path / "pic.svg").write_text("<svg/>")
    assert run("plot", *arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert not (tmp_path / "x.png").exists()


def test_a_file_that_is_no_picture_is_not_replaced(tmp_path, capsys):
    write_run(tmp_path / "run", last=1.0)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "a.png").symlink_to(tmp_path / "notes.txt")
    assert run("plot", tmp_path / "run", "--out", tmp_path / "a.png") == 2
    assert "is there and is no picture" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run("plot", write_run(tmp_path / "run", last=1.0), "--out", tmp_path / "a.png") == 2
    assert "pip install 'blt-llm[track]'" in capsys.readouterr().err
