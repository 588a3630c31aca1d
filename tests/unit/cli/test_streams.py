"""Where output goes, and where input comes from: pipes that break, streams that are closed, few characters."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from blt import cli

VERBS = {
    "": "--help",
    "generate": "--prompt Tom --max-new 3 --model model",
    "generate raw": "--prompt Tom --max-new 3 --raw --model model",
    "generate json": "--prompt Tom --max-new 3 --json --model model",
    "prepare": "stories.txt --out prepared",
    "train": "--fields",
    "evaluate": "--data stories.txt --model model --bootstrap 0",
    "bench": "--bytes 8 --repeats 1 --model model --what prefill",
    "patch": "Zoë --model model",
    "verify": "model --text Zoë",
    "calibrate": "--data stories.txt --mean-patch 3 --model model",
    "convert": "model --out converted",
    "plan": "--preset tiny",
}


def command(verb):
    return [*verb.split()[:1], *shlex.split(VERBS[verb])]


def status_of(arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    return stopped.value.code


@pytest.fixture
def place(tiny_folder, tmp_path, monkeypatch):
    tiny_folder.rename(tmp_path / "model")
    (tmp_path / "stories.txt").write_text("Tom had a ball.\n<|endoftext|>\nZoë saw a dog.\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("verb", VERBS)
def test_a_reader_that_has_seen_enough_is_no_error(verb, place, monkeypatch, capfd):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        assert status_of(command(verb)) == 0
    assert "Error" not in capfd.readouterr().err


@pytest.mark.parametrize("arguments", [["train", "--fields"], ["--version"], ["generate", "--help"]])
def test_a_reader_that_has_gone_leaves_status_0_and_nothing_is_said(arguments):
    with subprocess.Popen(
        [sys.executable, "-m", "blt", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_full_disk_is_one_line(place):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "blt", "plan"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (
        2,
        "blt: No space left on device; make room and run the same command again\n",
    )


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def shell(line, **variables):
    names = os.environ | {"BLT": f"{shlex.quote(sys.executable)} -m blt"} | variables
    return subprocess.run(["sh", "-c", line], env=names, capture_output=True, check=False)


@pytest.mark.parametrize("arguments", ["prepare - --out x", "evaluate --data -", "patch -", "generate --prompt-file -"])
def test_a_closed_input_is_one_line(arguments, place):
    done = shell(f"$BLT {arguments} <&-")
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert b"standard input: it is closed" in done.stderr


def test_a_closed_output_is_no_error_and_no_file_takes_its_place(place, tmp_path):
    done = shell("$BLT calibrate --data stories.txt --mean-patch 3 --model model --out made >&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert names_in(tmp_path / "made") == names_in(tmp_path / "model")


WITHOUT_HOME = """
import pwd, sys
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
from blt.cli import main
main(sys.argv[1:])
"""
"""As for a user whom the system does not know, such as one of a container."""


@pytest.mark.parametrize("verb", ["generate", "evaluate", "patch"])
def test_a_user_without_a_home_is_served(verb, place):
    variables = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    variables["BLT_NATIVE"] = "0"  # compiling takes a minute; test_build.py has where the library goes
    words = [sys.executable, "-c", WITHOUT_HOME, *command(verb)]
    done = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp437"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_output_encoding_shows_what_it_can(verb, encoding, place, monkeypatch, capfd):
    with Path("shown").open("w", encoding=encoding) as limited:
        monkeypatch.setattr(sys, "stdout", limited)
        assert status_of(command(verb)) == 0
    assert "Error" not in capfd.readouterr().err


def test_the_plainest_locale_shows_any_text(place):
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = shell("$BLT patch 'é' --model model; $BLT train --fields", **plain)
    assert (done.returncode, done.stderr) == (0, b"")
