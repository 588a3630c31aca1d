import re

import pytest

from blt import errors
from blt.errors import BLTError, MissingExtraError

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BLTError)]
DRAWN = dict(re.findall(r"[├└]── (\w+)\s+\((\w+)\)", errors.__doc__))


def test_the_drawn_tree_is_the_tree():
    assert set(DRAWN) == {cls.__name__ for cls in CLASSES} - {"BLTError"}


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not BLTError])
def test_every_error_is_caught_as_ours_and_as_the_builtin_that_the_tree_names(cls):
    builtin = vars(__import__("builtins"))[DRAWN[cls.__name__]]
    assert cls.__bases__ == (BLTError, builtin)
    assert cls.__doc__.endswith(".")


def test_a_missing_extra_says_how_to_install_it():
    error = MissingExtraError("pyarrow", extra="data", purpose="reading Parquet files")
    assert str(error) == "reading Parquet files needs the package 'pyarrow': pip install 'blt-llm[data]'"
    with pytest.raises(ImportError):
        raise error


@pytest.mark.parametrize(
    "text", ["two\nlines\tand more", "\x1b[2J\x07 cleared", "\u202e turned", "\ud800 alone", "é 魚 ✓"]
)
def test_whatever_a_message_repeats_it_is_one_printable_line(text):
    said = str(errors.DataError(f"notes.txt: {text}; give another"))
    assert said.isprintable()
    assert said.startswith("notes.txt: ")
    assert said.endswith("; give another")


def test_a_message_that_is_too_long_keeps_its_start_and_its_end():
    said = str(errors.DataError(f"notes.txt: {'x' * 10**6}; give another"))
    assert len(said) < 1100
    assert said.startswith("notes.txt: xxx")
    assert said.endswith("xxx; give another")
