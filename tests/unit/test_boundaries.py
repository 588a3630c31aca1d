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


def test_bricks_have_no_name_that_speaks_of_patches_or_bytes():
    words = ("patch", "byte", "entrop", "latent", "blt")
    names = {
        name
        for path in (SOURCE / "nn").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (getattr(node, "name", None), getattr(node, "id", None), getattr(node, "arg", None))
        if name
    }
    assert [name for name in sorted(names) if any(word in name.lower() for word in words) and name != "nbytes"] == []
