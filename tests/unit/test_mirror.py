"""A unit test lies where its module does: tests/unit/PACKAGE/test_MODULE.py, or test_MODULE_ASPECT.py."""

from pathlib import Path

import pytest

import blt

SOURCE = Path(blt.__file__).parent
UNIT = Path(__file__).parent

OF_NO_MODULE = {
    # the repository as a whole
    "test_boundaries.py",
    "test_committed_files.py",
    "test_documentation.py",
    "test_lints.py",
    "test_mirror.py",
    "test_packaging.py",
    "test_spec.py",
    # a rule that every module of a package keeps
    "cli/test_hostile_options.py",
    "lm/test_arguments.py",
    "lm/test_cold_start.py",
    "ops/native/test_sources.py",
    "ops/test_operators.py",
    "ops/test_schemas.py",
    "serving/test_company.py",
    "serving/test_logprobs.py",
    "serving/test_schema.py",
}


def mirrors(test, source):
    """Whether a test file, by its path below tests/unit, is named after a module or package of the same folder."""
    words = Path(test).stem.removeprefix("test_").split("_")
    names = ["_".join(words[:count]) for count in range(1, len(words) + 1)]
    folder = source / Path(test).parent
    return any((folder / f"{name}.py").is_file() or (folder / name).is_dir() for name in names)


def test_every_unit_test_lies_where_its_module_does():
    tests = {path.relative_to(UNIT).as_posix() for path in UNIT.rglob("test_*.py")}
    assert {test for test in tests if not mirrors(test, SOURCE)} == OF_NO_MODULE


@pytest.mark.parametrize(
    ("test", "is_mirror"),
    [
        ("data/test_batch.py", True),
        ("data/test_batch_of_rows.py", True),
        ("test_configuration.py", True),
        ("data/test_batches.py", False),
        ("test_batch.py", False),
    ],
)
def test_only_the_name_of_a_module_counts(tmp_path, test, is_mirror):
    (tmp_path / "data").mkdir()
    (tmp_path / "configuration").mkdir()
    (tmp_path / "data" / "batch.py").touch()
    assert mirrors(test, tmp_path) == is_mirror
