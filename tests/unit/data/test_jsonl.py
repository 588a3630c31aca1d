import pyarrow
import pyarrow.parquet
import pytest

from blt.data import read_documents
from blt.errors import DataError


def read(path, **options):
    return list(read_documents(path, **options))


@pytest.fixture
def write(tmp_path):
    def write(*lines):
        path = tmp_path / "a.jsonl"
        path.write_bytes(b"\n".join(lines))
        return path

    return write


GOOD = b'{"text": "fine"}'


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"text": ' * 200_000, "line 2 is not JSON"),
        (b'{"id": ' + b"[" * 200_000, "line 2 is not JSON"),
        (b'{"text": "a", "text": "b"}', "line 2 has the field 'text' 2 times"),
        (b'{"text": "a", "te\\u0078t": "b"}', "line 2 has the field 'text' 2 times"),
        (b'{"text": ' + b"9" * 10_000 + b"}", "line 2 has a number as 'text'"),
        (b'{"text": NaN}', "line 2 has a number as 'text'"),
        (b'{"text": "a\0b"}', "line 2 is not JSON (Invalid control character"),
        ('{"text": "a"}'.encode("utf-16-le"), "line 2 is not JSON"),
        (b'\xef\xbb\xbf{"text": "a"}', "line 2 is not JSON"),
        (b'{"text": {"text": "a"}}', "line 2 has a object as 'text'"),
        (b"{" + b",".join(b'"%d": 0' % n for n in range(50)) + b"}", "'19', 30 more; choose with --text-field"),
    ],
)
def test_hostile_lines_are_refused_in_one_line(write, line, what):
    with pytest.raises(DataError) as caught:
        read(write(GOOD, line))
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
    assert read(write(GOOD, line, GOOD), skip_bad=True) == [b"fine", b"fine"]


@pytest.mark.parametrize(
    ("line", "document"),
    [
        (b'{"n": ' + b"9" * 100_000 + b', "text": "a"}', b"a"),
        (b'{"n": 1e999999, "m": -Infinity, "text": "a"}', b"a"),
        (b'{"text": "a", "meta": {"text": "b", "x": 1, "x": 2}}', b"a"),
        (b'{"text": "\\u0000"}', b"\0"),
        (b'{"text": "\\udc80 \\ud800"}', b"\xed\xb2\x80 \xed\xa0\x80"),
        (b'{"text": "\xed\xa0\x80"}', b"\xed\xa0\x80"),
        (b'\t {"text": "a"} \r', b"a"),
    ],
)
def test_odd_lines_that_hold_one_document_are_read(write, line, document):
    assert read(write(GOOD, line)) == [b"fine", document]


def test_a_byte_order_mark_is_dropped_and_told(write, caplog):
    path = write(b"\xef\xbb\xbf" + GOOD)
    assert read(path) == [b"fine"]
    assert caplog.messages == [f"{path}: begins with a UTF-8 byte order mark, which is dropped"]


def test_bad_lines_are_passed_over_on_demand_and_told_by_number(write, caplog):
    bad = [b'{"text": null}', b'{"te', b"[]", b"{}", b"7"]
    path = write(GOOD, *bad, GOOD)
    with pytest.raises(DataError, match=r"line 2 has a null as 'text', not a string; or pass over .* with --skip-bad"):
        read(path)
    assert read(path, skip_bad=True) == [b"fine", b"fine"]
    assert len(caplog.messages) == 4
    assert caplog.messages[1].startswith(f"{path}: line 3 is not JSON")
    assert caplog.messages[-1] == f"{path}: 5 bad rows in all were passed over, 2 documents were read"
    with pytest.raises(DataError, match="has no documents"):
        read(write(*bad), skip_bad=True)


def test_bad_rows_of_parquet_are_passed_over_on_demand(tmp_path, caplog):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": [None, "a", None, "", "b"]}), path)
    with pytest.raises(DataError, match="row 1 has a null in column 'text', not a string; or pass over"):
        read(path)
    assert read(path, skip_bad=True) == [b"a", b"b"]
    assert caplog.messages == [
        f"{path}: row {number} has a null in column 'text', not a string; passed over" for number in (1, 3)
    ]


def test_strings_of_parquet_that_are_not_utf_8_are_raw_bytes(tmp_path):
    for name, type in (("a", pyarrow.string()), ("b", pyarrow.large_string())):
        raw = pyarrow.array([b"\xff\xfe", b"a"], pyarrow.large_binary() if name == "b" else pyarrow.binary())
        buffers = raw.buffers()
        column = pyarrow.Array.from_buffers(type, 2, buffers)
        path = tmp_path / f"{name}.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"text": column}), path)
        assert read(path) == [b"\xff\xfe", b"a"]


def test_a_line_or_row_beyond_the_limit_is_refused_by_its_number(write, tmp_path):
    path = write(GOOD, b'{"text": "' + b"a" * 200 + b'"}')
    with pytest.raises(DataError, match=r"a\.jsonl: line 2 has more than 200 bytes; divide it, or allow more"):
        read(path, max_document_bytes=200)
    assert len(read(path, max_document_bytes=300)) == 2
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "a" * 201]}), path)
    with pytest.raises(DataError, match=r"row 2 has more than 200 bytes; divide it, or allow more"):
        read(path, max_document_bytes=200)


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(DataError, match="has 2 columns 'text'; expected one"):
        read(path)
