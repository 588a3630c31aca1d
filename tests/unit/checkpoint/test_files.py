"""JSON that is no configuration."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.checkpoint import files, load_json
from blt.errors import CheckpointError, ModelFolderError


def refusal(path, content):
    path.write_bytes(content)
    with pytest.raises(ModelFolderError) as error:
        load_json(path)
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not readable as JSON"),
        (b'{"a": ', "not readable as JSON"),
        (b"\xff{}", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b'{"a": ' * 5000 + b"1" + b"}" * 5000, "not readable as JSON"),
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
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 10)
    assert "17 bytes of JSON; at most 10 are read" in refusal(tmp_path / "config.json", b'{"a": "too long"}')


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
