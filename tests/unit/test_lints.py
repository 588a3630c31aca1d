"""The lints that hold: an undefined name is found, in shape strings' neighbourhood too."""

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
