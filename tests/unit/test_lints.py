"""The lints that hold: an undefined name is found, in shape strings' neighbourhood too."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ('def f(x: Float[Tensor, " B"]) -> Undefined: ...', "F821"),
        ("from blt import cli\ncli._run([])", "SLF001"),
        ("try:\n    x = 1\nexcept Exception:\n    x = 2", "BLE001"),
        ("print(1)", "T201"),
    ],
)
def test_the_lints_find_what_they_are_for(code, rule):
    command = [sys.executable, "-m", "ruff", "check", "--output-format", "concise", "--stdin-filename"]
    done = subprocess.run(
        [*command, "src/blt/any.py", "-"], input=code, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert f" {rule} " in done.stdout


FILES = sorted((ROOT / "src" / "blt").rglob("*.py"))
NOT_VERBS = ("Give", "Gives", "Let", "Lets", "Say", "Says", "Take note", "Tell", "Tells")
"""No docstring begins so: its first word is what is returned or done ("Return", "Run", "Whether")."""
NOT_WORDS = ("foresee", "foresaw", "products of matrices", "lead-in", "led in", "so many", "hang on", "hangs on")
"""The field has other words for these: predict, matmul, context, a number by its name."""


def faults_of_docstrings(code):
    faults = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            text = " ".join(node.value.value.split())
            faults += [text for verb in NOT_VERBS if text.startswith(f"{verb} ")]
            faults += [text for word in NOT_WORDS if word in text]
    return faults


def test_docstrings_begin_with_what_is_returned_or_done_in_the_words_of_the_field():
    found = {path: faults_of_docstrings(path.read_text()) for path in FILES}
    assert len(found) > 200
    assert {str(path): faults for path, faults in found.items() if faults} == {}


@pytest.mark.parametrize(
    "line", ['"""Let rows join."""', '"""Take note of a byte."""', 'x = 1\n"""Bytes that the model can foresee."""']
)
def test_a_docstring_in_other_words_is_found(line):
    assert faults_of_docstrings(line)
    assert not faults_of_docstrings('"""Return the rows that let others join."""')
