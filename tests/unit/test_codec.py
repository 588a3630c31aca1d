import pytest
import torch

from blt.codec import BOE_ID, BOS_ID, BPE_ID, EOS_ID, Utf8Stream, decode_bytes, encode, to_bytes


def test_a_byte_becomes_its_value_plus_four_between_bos_and_eos():
    ids = encode("aé", bos=True, eos=True)
    assert ids.dtype == torch.int64
    assert ids.tolist() == [BOS_ID, 0x61 + 4, 0xC3 + 4, 0xA9 + 4, EOS_ID]


def test_no_text_has_no_ids():
    assert encode("").tolist() == []
    assert encode(b"", bos=True, eos=True).tolist() == [BOS_ID, EOS_ID]


def test_special_ids_vanish_wherever_they_stand():
    assert decode_bytes(torch.tensor([BOS_ID, 0x61 + 4, BOE_ID, BPE_ID, 0x62 + 4, EOS_ID])) == b"ab"


def test_ids_can_be_changed_without_changing_the_text():
    data = b"ab"
    encode(data).fill_(0)
    assert data == b"ab"


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("\udcff", b"\xff"),  # how Python passes the byte FF of a command-line argument
        ("a\udcc3\udca9", b"a\xc3\xa9"),
        ("\ud800", b"\xed\xa0\x80"),
        (b"\xff\x00", b"\xff\x00"),
    ],
)
def test_what_utf8_has_no_bytes_for_has_bytes_all_the_same(text, data):
    assert to_bytes(text) == data


def test_a_stream_holds_back_a_character_until_it_is_whole():
    stream = Utf8Stream()
    shown = [stream.feed(bytes([byte])) for byte in "a€b".encode()]
    assert shown == ["a", "", "", "€", "b"]
    assert stream.finish() == ""


def test_a_stream_shows_bytes_that_are_no_character_as_soon_as_that_is_certain():
    stream = Utf8Stream()
    assert stream.feed(b"\xff") == "\ufffd"
    assert stream.feed(b"\xe2\x82") == ""
    assert stream.feed(b"a") == "\ufffda"


def test_a_stream_that_stops_within_a_character_shows_one_replacement():
    stream = Utf8Stream()
    assert stream.feed("€".encode()[:2]) == ""
    assert stream.finish() == "\ufffd"
