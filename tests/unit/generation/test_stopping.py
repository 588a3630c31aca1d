"""Stop strings."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.generation import StopWatch


def shown(stops: list[bytes], data: bytes) -> list[bytes]:
    """Return what is shown after each byte, and at the end."""
    watch, pieces = StopWatch(stops), []
    for byte in data:
        pieces.append(watch.feed(bytes([byte])))
        if watch.has_stopped:
            break
    return [*pieces, watch.finish()]


@pytest.mark.parametrize(
    ("stops", "data", "pieces"),
    [
        ([], b"ab", [b"a", b"b", b""]),
        ([b"b"], b"abc", [b"a", b"", b""]),
        ([b"bc"], b"abd", [b"a", b"", b"bd", b""]),
        ([b"bc"], b"ab", [b"a", b"", b"b"]),
        ([b"aab"], b"aaab", [b"", b"", b"a", b"", b""]),
        ([b"abc", b"b"], b"xab", [b"x", b"", b"a", b""]),
        ([b"b", b"ab"], b"xab", [b"x", b"", b"", b""]),
    ],
)
def test_bytes_that_may_begin_a_stop_string_wait(stops, data, pieces):
    assert shown(stops, data) == pieces


few = st.binary(max_size=30).map(lambda data: bytes(byte % 3 for byte in data))


@settings(deadline=None)
@given(st.lists(few.filter(bool).map(lambda stop: stop[:4]), max_size=3), few)
def test_what_is_shown_is_the_text_before_the_first_stop_string_to_be_complete(stops, data):
    complete = [end for end in range(1, len(data) + 1) if data[:end].endswith(tuple(stops))]
    expected = data
    if complete:
        expected = data[: complete[0] - max(len(stop) for stop in stops if data[: complete[0]].endswith(stop))]
    assert b"".join(shown(stops, data)) == expected


@pytest.mark.parametrize(
    ("stops", "data", "matched"),
    [
        ([b"abc", b"b"], b"xab", b"b"),
        ([b"b", b"ab"], b"xab", b"ab"),
        ([b"abcd", b"bc"], b"abcd", b"bc"),
        ([b"c"], b"ab", None),
    ],
)
def test_the_stop_string_that_is_complete_first_is_told(stops, data, matched):
    watch = StopWatch(stops)
    for byte in data:
        if not watch.has_stopped:
            watch.feed(bytes([byte]))
    assert watch.matched == matched
