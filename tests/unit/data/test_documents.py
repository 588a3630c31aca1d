import gzip
import io
import json
import lzma
import sys

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.data import read_documents
from blt.errors import DataError, MissingExtraError

PACKERS = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def read(path, **options):
    return list(read_documents(path, **options))


def message_of(path, **options):
    with pytest.raises(DataError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def write_parquet(path, table):
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    return path


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        (b"one\n<|endoftext|>\ntwo\n<|endoftext|>\n", [b"one", b"two"]),
        (b"one\n<|endoftext|>\ntwo", [b"one", b"two"]),
        (b"one\n<|endoftext|>", [b"one"]),
        (b"no separator\nat all\n", [b"no separator\nat all\n"]),
        (b"\n\none\n\n<|endoftext|>\n\ntwo\n\n<|endoftext|>\n", [b"\n\none\n", b"\ntwo\n"]),
        (b"<|endoftext|>\n<|endoftext|>\n\n<|endoftext|>\nx\n<|endoftext|>\n\n", [b"x"]),
        (b"one\r\n<|endoftext|>\r\ntwo\r\nmore\r\n<|endoftext|>\r\n", [b"one", b"two\r\nmore"]),
        (b"one\r\n<|endoftext|>", [b"one"]),
        (b"one\r\n<|endoftext|>\n", [b"one\r"]),
        (
            b"a <|endoftext|>\n<|endoftext|> b\n <|endoftext|>\n",
            [b"a <|endoftext|>\n<|endoftext|> b\n <|endoftext|>\n"],
        ),
        (b"\xff\xfe\x00not utf-8\n<|endoftext|>\n\xe2\x82", [b"\xff\xfe\x00not utf-8", b"\xe2\x82"]),
    ],
)
def test_text_is_divided_at_separator_lines_and_nowhere_else(tmp_path, text, documents):
    path = tmp_path / "stories.txt"
    path.write_bytes(text)
    assert read(path) == documents


stories = st.binary(min_size=1, max_size=40).filter(lambda story: b"<|endoftext|>" not in story)


@given(st.lists(stories, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_documents_joined_by_separators_come_back(tmp_path_factory, documents):
    path = tmp_path_factory.mktemp("text") / "any.txt"
    path.write_bytes(b"<|endoftext|>\n" + b"".join(document + b"\n<|endoftext|>\n" for document in documents))
    assert read(path) == documents


@pytest.mark.parametrize("ending", ["", *PACKERS])
def test_every_format_is_read_under_every_compression(tmp_path, ending):
    documents = [f"story {number} ž".encode() * 100 for number in range(50)]
    files = {
        "a.txt": b"\n<|endoftext|>\n".join(documents),
        "a.jsonl": b"".join(json.dumps({"text": document.decode()}).encode() + b"\n" for document in documents),
        "a.parquet": write_parquet(tmp_path / "x", {"text": [d.decode() for d in documents]}).read_bytes(),
    }
    for name, content in files.items():
        path = tmp_path / (name + ending)
        path.write_bytes(PACKERS[ending](content) if ending else content)
        num_read = []
        assert read(path, on_read=num_read.append) == documents, path
        assert sum(num_read) >= path.stat().st_size


@pytest.mark.parametrize("ending", PACKERS)
def test_several_compressed_streams_one_after_another_are_one_file(tmp_path, ending):
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(PACKERS[ending](b"one\n<|endoft") + PACKERS[ending](b"ext|>\ntwo"))
    assert read(path) == [b"one", b"two"]


@pytest.mark.parametrize("ending", PACKERS)
def test_a_compressed_file_cut_short_is_refused_wherever_it_is_cut(tmp_path, ending):
    packed = PACKERS[ending](bytes(range(256)) * 40)
    path = tmp_path / f"a.txt{ending}"
    for length in (len(packed) // 2, len(packed) - 1):
        path.write_bytes(packed[:length])
        assert "was cut short" in message_of(path)


@pytest.mark.parametrize("ending", PACKERS)
def test_a_compressed_file_that_is_damaged_or_no_such_thing_is_refused(tmp_path, ending):
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(b"plain text, whatever its name says")
    assert "cannot be decompressed" in message_of(path)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.txt", gzip.compress(b"x"), "is gzip by its first bytes, where text was expected; end its name in .gz"),
        ("a.txt", lzma.compress(b"x"), "is xz by its first bytes"),
        ("a.jsonl", zstandard.compress(b"x"), "is Zstandard by its first bytes"),
        ("a.txt", b"PAR1....", "is Parquet by its first bytes, where text was expected; end its name in .parquet"),
        ("a.gz", lzma.compress(b"x"), "is xz by its first bytes, where gzip was expected"),
        ("a.txt.gz", gzip.compress(b"PAR1...."), "is Parquet by its first bytes"),
        ("a.parquet", gzip.compress(b"x"), "is gzip by its first bytes, where Parquet was expected"),
        ("a.txt", b"PK\x03\x04....", "is zip by its first bytes, where text was expected; extract its text first"),
        ("a.tar.gz", gzip.compress(b"name".ljust(257, b"\0") + b"ustar"), "is tar by its first bytes"),
        ("a.txt", b"%PDF-1.7 ", "is PDF by its first bytes"),
    ],
)
def test_a_file_of_another_kind_than_its_name_says_is_refused(tmp_path, name, content, what):
    path = tmp_path / name
    path.write_bytes(content)
    assert what in message_of(path)


def test_a_path_that_is_missing_a_folder_or_empty_is_refused(tmp_path):
    assert "does not exist" in message_of(tmp_path / "nothing.txt")
    assert "is a folder; give the files in it" in message_of(tmp_path)
    assert "cannot be read (File name too long)" in message_of(tmp_path / ("x" * 300))
    for name, content in {"a.txt": b"", "a.txt.gz": gzip.compress(b"")}.items():
        (tmp_path / name).write_bytes(content)
        assert "is empty" in message_of(tmp_path / name)


@pytest.mark.parametrize(("name", "content"), [("a.txt", b"<|endoftext|>\n"), ("a.jsonl", b'{"text": ""}\n\n')])
def test_a_file_without_documents_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert "has no documents" in message_of(tmp_path / name)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"text": "cut', "line 3 is not JSON"),
        (b"\xff", "line 3 is not JSON"),
        (b"[" * 100_000, "line 3 is not JSON"),
        (b'["text"]', "line 3 is a JSON list, not an object"),
        (b'{"story": "x", "id": 1}', "line 3 has no field 'text', only 'story', 'id'; choose with --text-field"),
        (b'{"text": null}', "line 3 has a null as 'text', not a string"),
        (b'{"text": 5}', "line 3 has a number as 'text', not a string"),
    ],
)
def test_a_bad_line_of_jsonl_is_refused_by_its_number(tmp_path, line, what):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "fine"}\n\n' + line + b"\n")
    assert what in message_of(path)


def test_jsonl_gives_any_field_and_any_string(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"story": "\\u0000\\ud83d\\ude00\\r\\n"}\n{"story": "\\ud800"}\n{"story": "last"}')
    assert read(path, text_field="story") == ["\0😀\r\n".encode(), b"\xed\xa0\x80", b"last"]


def test_parquet_gives_strings_and_bytes_of_any_column_and_drops_empty_ones(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"id": [1, 2, 3], "raw": [b"\xff", b"", b"x"], "t": ["é", "", "z"]})
    assert read(path, text_field="raw") == [b"\xff", b"x"]
    assert read(path, text_field="t") == ["é".encode(), b"z"]


def test_a_bad_parquet_file_is_refused(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"id": [1, 2], "maybe": ["x", None], "text": ["x" * 5000, "y"]})
    assert "has no column 'story', only id, maybe, text" in message_of(path, text_field="story")
    assert "row 1 has a int in column 'id', not a string" in message_of(path, text_field="id")
    assert "row 2 has a null in column 'maybe'" in message_of(path, text_field="maybe")
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    assert "is no Parquet file or is damaged" in message_of(path)
    path.write_bytes(content[:4] + b"\xff" * (len(content) // 2) + content[4 + len(content) // 2 :])
    assert "is no Parquet file or is damaged" in message_of(path)


@pytest.mark.parametrize(
    ("content", "format"), [(b"one\n<|endoftext|>\ntwo", "auto"), (b'{"text": "one"}\n{"text": "two"}', "jsonl")]
)
def test_standard_input_is_text_unless_the_format_is_given(monkeypatch, content, format):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert read("-", format=format) == [b"one", b"two"]


def test_trouble_with_standard_input_is_called_so(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(b"x"))))
    with pytest.raises(DataError, match=r"^standard input: is gzip by its first bytes"):
        read("-")


def test_text_is_streamed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"story\n<|endoftext|>\n" * 500_000)
    num_read = []
    documents = read_documents(path, on_read=num_read.append)
    assert next(documents) == b"story"
    assert sum(num_read) < path.stat().st_size / 4
    documents.close()


@pytest.mark.parametrize(("module", "name"), [("pyarrow", "a.parquet"), ("zstandard", "a.txt.zst")])
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, module, name):
    write_parquet(tmp_path / "a.parquet", {"text": ["x"]})
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(b"x"))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"needs the package '{module}': pip install 'blt-llm\[data\]'"):
        read(tmp_path / name)
