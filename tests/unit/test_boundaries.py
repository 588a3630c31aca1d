"""What import-linter cannot say: who keeps away from which part of another package, and from which words."""

import ast
from pathlib import Path

import pytest

import blt

SOURCE = Path(blt.__file__).parent


def imported_by(code):
    """Every module that a file imports, wherever it does so; `from a import b` counts as a and as a.b."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def breaches(folder, forbidden):
    return [
        f"{path.relative_to(folder.parent)} imports {name}"
        for path in sorted(folder.rglob("*.py"))
        for name in sorted(imported_by(path.read_text()))
        if name == forbidden or name.startswith(f"{forbidden}.")
    ]


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("model", "torch.distributed"),
        ("nn", "torch.distributed"),
        ("interop", "blt.inspection"),
        ("serving", "torch"),
        ("serving", "numpy"),
    ],
)
def test_a_package_keeps_away_from_what_is_not_its_business(package, forbidden):
    assert breaches(SOURCE / package, forbidden) == []


@pytest.mark.parametrize(
    "line", ["import torch.distributed", "from torch import distributed", "from torch.distributed.x import y"]
)
def test_a_breach_is_found_however_it_is_written(tmp_path, line):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "part.py").write_text(f"def f():\n    {line}\n")
    assert breaches(tmp_path / "model", "torch.distributed")
    assert not breaches(tmp_path / "model", "torch.dist")


def names_of_bytes(code):
    """Every name in a file that speaks of bytes, patches or this model; `nbytes` is PyTorch's."""
    words = ("patch", "byte", "entrop", "latent", "blt")
    names = {
        name
        for node in ast.walk(ast.parse(code))
        for name in (getattr(node, "name", None), getattr(node, "id", None), getattr(node, "arg", None))
        if isinstance(name, str) and not name.startswith("blt.")  # what a file imports
    }
    return [name for name in sorted(names) if any(word in name.lower() for word in words) and name != "nbytes"]


def test_building_blocks_have_no_name_that_speaks_of_patches_or_bytes():
    files = sorted((SOURCE / "nn").rglob("*"))
    assert all(path.suffix in {".py", ".pyc"} or path.is_dir() for path in files)
    code = {path: path.read_text() for path in files if path.suffix == ".py"}
    assert code
    assert {path.name: names for path, text in code.items() if (names := names_of_bytes(text))} == {}


@pytest.mark.parametrize("line", ["of_byte = 1", "def f(patches): ...", "class LatentBlock: ..."])
def test_a_name_that_speaks_of_bytes_is_found(line):
    assert names_of_bytes(line)
    assert not names_of_bytes("from blt.shapes import Tensor\nsize = states.nbytes")
