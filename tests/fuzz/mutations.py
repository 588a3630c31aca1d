"""Inputs near sound ones."""

from hypothesis import strategies as st

Value = bytes | dict[str, bytes]
"""A file, or a folder as file names and contents."""

_TOKENS = [
    *(b"\0", b"\xff", b"\n", b"\r", b"\r\n", b"\t", b" ", b'"', b"'", b"\\", b"\\u0000", b"\\ud800", b"\\", b"-", b"#"),
    *(b"{", b"}", b"[", b"]", b":", b",", b"{}", b"[]", b"null", b"true", b"NaN", b"Infinity", b"-1", b"0", b"1e999"),
    *(b"9" * 5000, b"1" * 20, b"-9223372036854775809", b"0.1", b"[" * 100_000, b'{"a":' * 50_000, b"(" * 5000, b"="),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xc0\x80", b"../", b"/", b"~"),
    *(b"<|endoftext|>", b"PAR1", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xff\xff\xff\xff", b"\xff" * 8, b"\x7f\xff"),
    *((1 << shift).to_bytes(8, "little") for shift in (0, 7, 15, 31, 32, 47, 62, 63)),
]
_KINDS = ("token", "new", "flip", "cut", "repeat", "splice", "delete")

_Change = tuple[int, int, int, int, bytes]
_CHANGES = st.tuples(
    st.integers(0, len(_KINDS) - 1),
    st.integers(0, 1 << 24),
    st.integers(0, 32),
    st.integers(0, 1 << 16),
    st.binary(max_size=8),
)


def mutated(seeds: list[Value]) -> st.SearchStrategy[Value]:
    """Return inputs that one to four changes make of the seeds; fewer and earlier ones are simpler."""
    parts = [part for seed in seeds for part in ([seed] if isinstance(seed, bytes) else seed.values())]

    def build(drawn: tuple[int, list[tuple[int, _Change]]]) -> Value:
        number, changes = drawn
        seed = seeds[number]
        files = {"": seed} if isinstance(seed, bytes) else dict(seed)
        for file, change in changes:
            name = sorted(files)[file % len(files)]
            files[name] = _changed(files[name], change, parts)
        return files[""] if isinstance(seed, bytes) else files

    changes = st.lists(st.tuples(st.integers(0, 64), _CHANGES), min_size=1, max_size=4)
    return st.tuples(st.integers(0, len(seeds) - 1), changes).map(build)


def _changed(data: bytes, change: _Change, parts: list[bytes]) -> bytes:
    """Change a file in one place."""
    kind, place, length, number, new = change
    start = place % (len(data) + 1)
    before, here, after = data[:start], data[start : start + length], data[start + length :]
    other = parts[number % len(parts)]
    return {
        "token": before + _TOKENS[number % len(_TOKENS)] + here + after,
        "new": before + new + after,
        "flip": before + bytes(byte ^ (1 << number % 8) for byte in here[:1]) + here[1:] + after,
        "cut": before,
        "repeat": before + here * (number % 400) + after,
        "splice": before + other[number % (len(other) + 1) :],
        "delete": before + after,
    }[_KINDS[kind]]
