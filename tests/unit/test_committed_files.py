import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

MACHINE_PATH = re.compile(r"(?<![\w.~$}/-])/(?:root|work|home|Users)/\w")
"""A path that only one machine has, at the start of a word."""


def committed_files():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "-z"], cwd=ROOT, capture_output=True, check=False, text=True
    )
    if listed.returncode == 0:
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    hidden = {".git", ".venv", "__pycache__", "build", "dist", "runs"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not hidden & set(path.relative_to(ROOT).parts)]


def text_of(path):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def test_no_committed_text_names_a_path_of_one_machine():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in committed_files()
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("top", ["root", "work", "home", "Users"])
def test_such_a_path_would_be_found(top):
    assert MACHINE_PATH.search(f'open("/{top}/me/data.txt")')
    assert not MACHINE_PATH.search(f"https://example.org/{top}/me")


def test_there_are_files_to_look_at():
    names = {str(path.relative_to(ROOT)) for path in committed_files()}
    assert {"README.md", "pyproject.toml", "src/blt/__init__.py"} <= names
