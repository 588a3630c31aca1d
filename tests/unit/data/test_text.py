import io
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.data import read_documents
from blt.data.text import divide_text
from blt.errors import DataError

BOM = b"\xef\xbb\xbf"


def read(tmp_path, text, **options):
    (tmp_path / "a.txt").write_bytes(text)
    return list(read_documents(tmp_path / "a.txt", **options))


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        (b"One.\n<|endoftext|> \nTwo.\n<|endoftext|>\t \n", [b"One.", b"Two."]),
        (b"One.\r<|endoftext|>\rTwo.\r", [b"One.", b"Two."]),
        (b"<|endoftext|>\rOne.\r\rmore\r<|endoftext|>", [b"One.\r\rmore"]),
        (b"One.\n<|endoftext|>\nTwo.\n", [b"One.", b"Two."]),
        (b"One.\r\n<|endoftext|>\r\nTwo.\r\n", [b"One.", b"Two."]),
        (b"One.\n<|endoftext|>\nTwo.\r\n", [b"One.", b"Two.\r"]),
        (b"One.\n<|endoftext|>\nTwo.\n\n", [b"One.", b"Two.\n"]),
        (b"One.\n", [b"One.\n"]),
    ],
)
def test_separators_that_are_nearly_right_and_plainly_meant_divide(tmp_path, caplog, text, documents):
    assert read(tmp_path, text) == documents
    assert not caplog.messages


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b"One.<|endoftext|>\nTwo.<|endoftext|>\n", "line 1 and 1 more: <|endoftext|> beside other text"),
        (b"a\nb\n <|endoftext|>\nc", "line 3: <|endoftext|> beside other text"),
        (b"a\n<|endoftext|>\n\n<|endoftext|> b\nc", "line 4: <|endoftext|> beside other text"),
        (b"One.\r<|endoftext|>\nTwo.", "line 1: <|endoftext|> beside other text"),
        (b"One.\n<|endoftext|>\rTwo.", "line 2: <|endoftext|> beside other text"),
        (b"a\n" + b"<|endoftext|>" * 3 + b"\n", "line 2 and 2 more: <|endoftext|> beside other text"),
        (b"a\n<|endoftext|>" + b" " * 65 + b"\n", "line 2: <|endoftext|> beside other text"),
    ],
)
def test_a_separator_beside_other_text_is_text_and_told_with_its_first_line(tmp_path, caplog, text, where):
    assert b"<|endoftext|>" in b"".join(read(tmp_path, text))
    [message] = caplog.messages
    assert message.startswith(f"{tmp_path / 'a.txt'}: {where}")
    assert "put it on a line of its own" in message


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        (BOM + b"<|endoftext|>\nOne.\n", [b"One."]),
        (BOM + b"One.", [b"One."]),
        (BOM + BOM + b"One.", [BOM + b"One."]),
    ],
)
def test_a_byte_order_mark_at_the_start_is_dropped_and_told(tmp_path, caplog, text, documents):
    assert read(tmp_path, text) == documents
    assert caplog.messages == [f"{tmp_path / 'a.txt'}: begins with a UTF-8 byte order mark, which is dropped"]


def test_a_byte_order_mark_elsewhere_is_text(tmp_path, caplog):
    assert read(tmp_path, b"One.\n<|endoftext|>\n" + BOM + b"Two.") == [b"One.", BOM + b"Two."]
    assert not caplog.messages


class _Dribble(io.RawIOBase):
    """Gives a text in pieces of odd lengths, as pipes do."""

    def __init__(self, data, random_numbers, most):
        self._data, self._random, self._most = data, random_numbers, most

    def readable(self):
        return True

    def readinto(self, buffer):
        count = min(self._random.randint(1, self._most), len(buffer), len(self._data))
        buffer[:count], self._data = self._data[:count], self._data[count:]
        return count


PIECES = [
    b"<|endoftext|>",
    b"<|endoftext|>\n",
    b"\n",
    b"\r\n",
    b"\r",
    b" ",
    b"a",
    b"<|endof",
    b"text|>",
    b" " * 70,
    BOM,
]


@given(st.lists(st.sampled_from(PIECES), max_size=30), st.integers(0, 1 << 32), st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_documents_do_not_hang_on_the_pieces_that_a_text_comes_in(pieces, seed, most):
    data = b"".join(pieces)
    whole = list(divide_text(io.BufferedReader(io.BytesIO(data)), name="a", max_document_bytes=1000))
    stream = io.BufferedReader(_Dribble(data, random.Random(seed), most))
    assert list(divide_text(stream, name="a", max_document_bytes=1000)) == whole


def test_many_short_documents_take_time_in_proportion(tmp_path):
    assert len(read(tmp_path, b"a\n<|endoftext|>\n" * 50_000)) == 50_000


def test_many_separators_beside_other_text_take_time_in_proportion(tmp_path):
    start = time.process_time()
    read(tmp_path, b"<|endoftext|>" * 200_000)
    assert time.process_time() - start < 5  # 0.1 s; where each counted the lines before it, 32 s


def test_a_document_beyond_the_limit_is_refused_by_its_number_and_line(tmp_path):
    text = b"One.\n<|endoftext|>\n" + b"long\n" * 21 + b"<|endoftext|>\nThree."
    with pytest.raises(DataError, match=r"a\.txt: document 2, which begins on line 3, has more than 100 bytes; divide"):
        read(tmp_path, text, max_document_bytes=100)
    assert len(read(tmp_path, text, max_document_bytes=104)) == 3
