import importlib
import subprocess
import sys

import click
import pytest

import blt
from blt import cli
from blt.errors import DataError


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    return stop.value.code


@pytest.fixture
def failing_verb(monkeypatch):
    """Make `blt evaluate` raise what it is given."""

    def fail_with(error):
        @click.command()
        def evaluate():
            raise error

        monkeypatch.setattr(importlib.import_module("blt.cli.evaluate"), "evaluate", evaluate)

    return fail_with


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_every_verb_with_its_line(capsys, option):
    assert run(option) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for verb, line in cli.VERBS.items():
        assert f"{verb} {line}" in shown


def test_every_verb_has_a_module_a_function_of_its_name_and_help(capsys):
    for verb in cli.VERBS:
        assert run(verb, "--help") == 0, verb
        assert f"Usage: blt {verb}" in capsys.readouterr().out


def test_without_a_verb_the_help_is_shown_with_exit_status_2(capsys):
    assert run() == 2
    assert "Verbs" in capsys.readouterr().out


def test_the_version_is_the_package_s(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"blt, version {blt.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evalute"], "No such command 'evalute'"),
        (["--unknown"], "No such option"),
        (["evaluate", "--unknown"], "No such option"),
    ],
)
def test_what_the_command_does_not_know_is_told_with_exit_status_2(capsys, arguments, message):
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert not shown.out


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("data.txt: line 3 is\n  not JSON"), "blt: data.txt: line 3 is not JSON"),
        (FileNotFoundError(2, "No such file or directory", "data.txt"), "blt: data.txt: No such file or directory"),
        (MemoryError(), "blt: MemoryError"),
    ],
)
def test_an_error_is_one_line_and_exit_status_2(failing_verb, capsys, error, line):
    failing_verb(error)
    assert run("evaluate") == 2
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize("arguments", [["--debug", "evaluate"], ["evaluate", "--debug"]])
def test_with_debug_the_error_is_raised_wherever_the_option_stands(failing_verb, arguments):
    failing_verb(DataError("broken"))
    with pytest.raises(DataError, match="broken"):
        cli.main(arguments)


def test_a_defect_is_never_hidden(failing_verb):
    failing_verb(ZeroDivisionError("a mistake of ours"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["evaluate"])


def test_stopping_by_hand_ends_with_exit_status_130(failing_verb, capsys):
    failing_verb(KeyboardInterrupt())
    assert run("evaluate") == 130
    assert "stopped" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["blt", "blt.cli"])
def test_help_does_not_wait_for_pytorch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_python_m_blt_is_the_command():
    done = subprocess.run([sys.executable, "-m", "blt", "nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "No such command 'nonsense'" in done.stderr
    assert "Usage: blt" in done.stderr
