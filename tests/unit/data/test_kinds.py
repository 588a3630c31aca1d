import bz2
import gzip
import json
import lzma
import random

import pytest
import zstandard

from blt.data import read_documents
from blt.data.kinds import format_of
from blt.errors import DataError

LINES = b'{"text": "a"}\n{"text": "b"}\n'


def read(path, **options):
    return list(read_documents(path, **options))


def message_of(path, **options):
    with pytest.raises(DataError) as caught:
        read(path, **options)
    return str(caught.value)


@pytest.mark.parametrize("ending", [".JSONL", ".Jsonl", ".jsonlines", ".jl", ".ndjson", ".NDJSON", ".json"])
@pytest.mark.parametrize(
    ("packed", "pack"),
    [
        ("", bytes),
        (".GZ", gzip.compress),
        (".gzip", gzip.compress),
        (".bz2", bz2.compress),
        (".BZ2", bz2.compress),
        (".Xz", lzma.compress),
        (".lzma", lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE)),
        (".zstd", zstandard.compress),
    ],
)
def test_endings_are_known_in_every_usual_spelling(tmp_path, ending, packed, pack):
    path = tmp_path / f"a{ending}{packed}"
    path.write_bytes(pack(LINES))
    assert read(path) == [b"a", b"b"]


@pytest.mark.parametrize("name", ["a.parquet", "a.PARQUET", "a.pq", "a.parq.GZ"])
def test_parquet_is_known_by_its_endings(name):
    assert format_of(name) == "parquet"


@pytest.mark.parametrize("name", ["a.jsonl.txt", "a", "a.jsonlx", "a.txt.gz"])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\n "])
def test_jsonl_under_a_name_that_does_not_say_so_is_refused_unless_it_is_told_to_be_text(tmp_path, name, before):
    path = tmp_path / name
    path.write_bytes(gzip.compress(before + LINES) if name.endswith(".gz") else before + LINES)
    assert "a JSON object with a field 'text', but its name does not say JSONL; choose --format" in message_of(path)
    assert read(path, format="jsonl") == [b"a", b"b"]
    assert read(path, format="text") == [(before + LINES).removeprefix(b"\xef\xbb\xbf")]


@pytest.mark.parametrize("text", [b"{}\n", b'{ "id": 1 }\n', b'{"text": "a"} and more\n', b'say {"text": "a"}\n'])
def test_text_that_is_a_little_like_jsonl_is_text(tmp_path, text):
    (tmp_path / "a.txt").write_bytes(text)
    assert read(tmp_path / "a.txt") == [text]


def pack_with_checksum(data):
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


@pytest.mark.parametrize(
    ("ending", "pack"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", pack_with_checksum)],
)
def test_a_damaged_file_is_never_read_as_text(tmp_path, ending, pack):
    packed = pack(random.Random(0).randbytes(5000))
    path = tmp_path / f"a.txt{ending}"
    for start in (0, len(packed) // 2):
        path.write_bytes(packed[:start] + b"\x55" * 5 + packed[start + 5 :])
        assert "cannot be decompressed" in message_of(path)
    path.write_bytes(packed[: len(packed) // 2])
    assert "was cut short" in message_of(path)


@pytest.mark.parametrize("name", ["a.txt.lz4", "a.7Z", "a.tar", "a.zip", "a.tgz", "a.txt.br", "a.pkl", "a.arrow"])
def test_archives_and_binary_files_that_are_not_read_are_named_even_if_damaged(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\x00\x01 no head that anything knows")
    ending = path.suffix.lower()
    assert f"{ending} files are not read; unpack it first, or take it as text with --format text" in message_of(path)
    assert read(path, format="text") == [path.read_bytes()]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x04\x22\x4d\x18....", "lz4"),
        (b"7z\xbc\xaf\x27\x1c..", "7z"),
        (b"Rar!\x1a\x07\x01\x00", "rar"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (bz2.compress(b""), "bzip2"),
    ],
)
def test_other_kinds_are_known_by_their_first_bytes(tmp_path, content, kind):
    (tmp_path / "a.txt").write_bytes(content)
    assert f"is {kind} by its first bytes" in message_of(tmp_path / "a.txt")


@pytest.mark.parametrize("text", [b"PAR1 is how Parquet begins.\n", b"%PDF- is how PDF begins.\n"])
def test_text_that_begins_as_another_kind_does_is_read_where_the_format_says_text(tmp_path, text):
    (tmp_path / "a.txt").write_bytes(text)
    assert "or take it as it is with --format text" in message_of(tmp_path / "a.txt")
    assert read(tmp_path / "a.txt", format="text") == [text]
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text))
    assert read(tmp_path / "a.txt.gz", format="text") == [text]


def test_what_is_packed_is_not_text_even_where_the_format_says_so(tmp_path):
    (tmp_path / "a.txt").write_bytes(gzip.compress(b"x"))
    assert "is gzip by its first bytes" in message_of(tmp_path / "a.txt", format="text")


def test_utf_16_is_told(tmp_path, caplog):
    (tmp_path / "a.txt").write_bytes("é".encode("utf-16"))
    assert read(tmp_path / "a.txt") == ["é".encode("utf-16")]
    assert "begins as UTF-16 does" in caplog.text


@pytest.mark.parametrize(
    ("options", "option"), [({"text_field": "text"}, "--text-field"), ({"skip_bad": True}, "--skip-bad")]
)
def test_options_that_mean_nothing_for_text_are_refused(tmp_path, options, option):
    (tmp_path / "a.txt").write_bytes(b"x")
    assert f"is plain text, for which {option} means nothing" in message_of(tmp_path / "a.txt", **options)
    (tmp_path / "a.jsonl").write_bytes(json.dumps({"text": "x"}).encode())
    assert read(tmp_path / "a.jsonl", **options) == [b"x"]
