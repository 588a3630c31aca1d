"""JSON that is no configuration."""

import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.checkpoint import FolderKind, load_json, reading, recover_folder, write_file, write_folder
from blt.errors import CheckpointError, ModelFolderError, OutputError

ANY = FolderKind(noun="folder of anything", files=re.compile(".*"), is_own=lambda _: True)


def refusal(path, content):
    path.write_bytes(content)
    with pytest.raises(ModelFolderError) as error:
        load_json(path)
    assert str(error.value).isprintable()
    return str(error.value)


TOO_DEEP = "not readable as JSON" if sys.version_info < (3, 13) else "tables within tables, more than 64 deep"
"""What is said of thousands of levels, which Python reads from 3.13 on."""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not readable as JSON"),
        (b'{"a": ', "not readable as JSON"),
        (b"\xff{}", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b'{"a": ' * 5000 + b"1" + b"}" * 5000, TOO_DEEP),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not readable as JSON"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "tables within tables, more than 64 deep"),
        (b"[]", "expected a JSON object, found list"),
        (b"null", "expected a JSON object, found NoneType"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_is_no_object_is_told(tmp_path, content, said):
    assert said in refusal(tmp_path / "config.json", content)


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_JSON_BYTES", 10)
    assert "17 bytes; at most 10 are read" in refusal(tmp_path / "config.json", b'{"a": "too long"}')


def test_a_missing_file_is_told_in_the_words_of_whoever_asked(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_json(tmp_path / "state.json", error=CheckpointError)


def test_sixty_levels_are_read(tmp_path):
    content = b'{"a": ' + b"[" * 60 + b"]" * 60 + b"}"
    (tmp_path / "deep.json").write_bytes(content)
    assert load_json(tmp_path / "deep.json") == json.loads(content)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=60) | st.text(alphabet='{}[]",:0123456789eE-+.nulltrue\\ ', max_size=60))
def test_whatever_a_file_holds_either_it_is_read_or_one_clear_line_says_why_not(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        said = load_json(path)
    except ModelFolderError as error:
        said = str(error)
    assert isinstance(said, dict) or said.isprintable()


@pytest.fixture
def working_folder(tmp_path, monkeypatch):
    folder = tmp_path / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", [".", "./", "..", "../working", "../working/.", "/"])
def test_the_folder_one_works_in_and_those_around_it_are_never_replaced(working_folder, name):
    (working_folder / "notes.txt").write_text("mine")
    with pytest.raises(ModelFolderError, match="the folder that one works in"):
        write_folder(Path(name), lambda folder: None, kind=ANY)
    assert (working_folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["../other", "../other/.", "inner", "inner/deeper"])
def test_any_other_name_is_written(working_folder, name):
    write_folder(Path(name), lambda folder: (folder / "new").touch(), kind=ANY)
    assert (Path(name) / "new").is_file()


@pytest.mark.parametrize("name", [".", "..", "/", "./", "../working"])
def test_to_recover_a_folder_takes_any_name(working_folder, name):
    beside = working_folder.parent / ".working.replaced"
    beside.mkdir()
    recover_folder(Path(name))
    assert beside.exists()  # who reads deletes nothing
    assert working_folder.is_dir()


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_file_is_never_written_over_a_folder(working_folder, name):
    with pytest.raises(OutputError, match="is a folder; give the name of a file"):
        write_file(Path(name), b"")
