"""Law 6, first half: encode ∘ decode = identity for every byte string; and text streams whole characters."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blt.codec import BOS_ID, BYTE_OFFSET, EOS_ID, Utf8Stream, decode_bytes, encode, to_bytes

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines may be shared


@unhurried
@given(st.binary(), st.booleans(), st.booleans())
def test_decoding_undoes_encoding(data: bytes, bos: bool, eos: bool):
    ids = encode(data, bos=bos, eos=eos)
    assert decode_bytes(ids) == data
    assert len(ids) == len(data) + bos + eos


def test_every_byte_has_an_id_of_its_own():
    ids = encode(bytes(range(256)), bos=True, eos=True).tolist()
    assert ids == [BOS_ID, *range(BYTE_OFFSET, BYTE_OFFSET + 256), EOS_ID]


@unhurried
@given(st.text())
def test_text_comes_back(text: str):
    assert decode_bytes(encode(text)).decode() == text


@unhurried
@given(st.text(st.characters()))
def test_any_str_has_bytes_lone_surrogates_too(text: str):
    assert decode_bytes(encode(text)) == to_bytes(text)


def stream(data: bytes, cuts: list[int]) -> list[str]:
    """Feed data in chunks that end at the cuts; give what each showed, and what `finish` did."""
    utf8, places = Utf8Stream(), sorted(min(cut, len(data)) for cut in cuts)
    chunks = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    return [*(utf8.feed(chunk) for chunk in chunks), utf8.finish()]


@unhurried
@given(st.text(), st.lists(st.integers(0, 60)))
def test_a_stream_never_splits_a_character(text: str, cuts: list[int]):
    shown = stream(text.encode(), cuts)
    assert "".join(shown) == text
    assert shown[-1] == ""


@unhurried
@given(st.binary(), st.lists(st.integers(0, 60)))
def test_a_stream_shows_any_bytes_as_decoding_them_at_once_would(data: bytes, cuts: list[int]):
    assert "".join(stream(data, cuts)) == data.decode("utf-8", "replace")
