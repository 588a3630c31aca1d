"""Text by regular expression and JSON schema."""

import builtins
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.codec import BYTE_OFFSET, EOS_ID, VOCABULARY_SIZE
from blt.errors import BLTError, ConfigurationError, MissingExtraError
from blt.generation import Sampler, SamplingConfig, generate, stream
from blt.generation.constraint import Constraint, constraint_of

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 3, "maximum": 42},
        "colours": {"type": "array", "items": {"enum": ["red", "blå", "🟢"]}, "maxItems": 3},
    },
    "required": ["name", "age", "colours"],
    "additionalProperties": False,
}


def is_person(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"name", "age", "colours"}
        and isinstance(value["name"], str)
        and 1 <= len(value["name"]) <= 12
        and type(value["age"]) is int
        and 3 <= value["age"] <= 42
        and isinstance(value["colours"], list)
        and len(value["colours"]) <= 3
        and set(value["colours"]) <= {"red", "blå", "🟢"}
    )


def read(data: bytes, **options: object) -> Sampler:
    sampler = Sampler(SamplingConfig(temperature=1, **options))
    for byte in data:
        sampler.read(byte + BYTE_OFFSET)
    return sampler


def may_follow(data: bytes, **options: object) -> set[int | None]:
    """The bytes that may come after some, and None for the end."""
    ids = np.flatnonzero(read(data, **options).probabilities(np.zeros(VOCABULARY_SIZE, np.float32)))
    return {None if index == EOS_ID else int(index) - BYTE_OFFSET for index in ids}


def written(sampler: Sampler, *, seed: int, most: int) -> bytes | None:
    """What comes of a model that knows nothing; None if that has no end."""
    random, data = np.random.default_rng(seed), b""
    for _ in range(most):
        chosen = sampler.choose((3 * random.standard_normal(VOCABULARY_SIZE)).astype(np.float32))
        if chosen == EOS_ID:
            return data
        sampler.read(chosen)
        data += bytes([chosen - BYTE_OFFSET])
    return None


@pytest.mark.parametrize(
    ("regex", "data", "expected"),
    [
        ("ab|cd", b"", b"ac"),
        ("ab|cd", b"c", b"d"),
        ("[a-c]{2,3}", b"ab", b"abc."),
        ("[a-c]{2,3}", b"abc", b"."),
        ("x*", b"", b"x."),
        ("é|è", b"\xc3", b"\xa8\xa9"),
        ("^ab$", b"a", b"b"),
        ("", b"", b"."),
        ('a/"\\n', b'a/"', b"\n"),
    ],
)
def test_bytes_may_come_that_lead_to_a_match_and_the_end_where_all_matches(regex, data, expected):
    assert may_follow(data, regex=regex) == {None if byte == ord(".") else byte for byte in expected}


REGEXES = [
    r"(ab|ac)*d?",
    r"[0-9]{1,3}(\.[0-9]+)?",
    r"[^a]{1,5}",
    r"(?s:.{0,4})",
    r"Z[oö]ë( 🙂)+",
    r"(?i)yes|no",
    r"[à-ü]{2}",
]


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(REGEXES), st.integers(0, 2**20), st.sampled_from([None, True, False]))
def test_what_is_written_to_the_end_matches_as_a_whole(regex, seed, valid_utf8):
    sampler = Sampler(SamplingConfig(temperature=1, seed=seed, regex=regex, valid_utf8=valid_utf8))
    data = written(sampler, seed=seed, most=60)
    if data is not None:
        assert re.fullmatch(regex, data.decode())


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**20),
    st.sampled_from([{}, {"top_k": 2}, {"top_p": 0.5, "min_p": 0.1}, {"repetition_penalty": 1.3}]),
)
def test_json_by_a_schema_parses_and_validates(seed, options):
    data = written(Sampler(SamplingConfig(seed=seed, json_schema=PERSON, **options)), seed=seed, most=2000)
    assert data is not None
    assert is_person(json.loads(data))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**20))
def test_any_json_parses(seed):
    data = written(Sampler(SamplingConfig(temperature=1, seed=seed, json_schema={})), seed=seed, most=400)
    if data is not None:
        json.loads(data)


@pytest.mark.parametrize("schema", [PERSON, json.dumps(PERSON)])
def test_a_schema_may_be_a_dict_or_json(schema):
    assert may_follow(b"", json_schema=schema) == {ord("{")}
    assert may_follow(b"{", json_schema=schema) == {ord('"'), ord(" ")}
    assert may_follow(b"{ ", json_schema=schema) == {ord('"')}  # no second space: a small model would go on for ever


@pytest.mark.parametrize("schema", [{}, "{}", "true"])
def test_the_empty_schema_is_any_json(schema):
    assert {ord(start) for start in '{["-09tfn'} <= may_follow(b"", json_schema=schema)


def test_a_schema_may_refer_to_itself():
    assert may_follow(b"[[[[[", json_schema={"type": "array", "items": {"$ref": "#"}}) >= {ord("["), ord("]")}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"regex": "(ab"}, "unclosed group"),
        ({"regex": r"a(?=b)"}, "look-around"),
        ({"regex": r"(a)\1"}, "backreferences"),
        ({"regex": "a[b&&c]"}, "no text matches it"),
        ({"regex": "a\udcff"}, "surrogates"),
        ({"json_schema": "{"}, "is not JSON"),
        ({"json_schema": "[1]"}, "expected a JSON object"),
        ({"json_schema": {"a": object()}}, "is not JSON"),
        ({"json_schema": {"type": "thing"}}, "thing"),
        ({"json_schema": {"type": "integer", "minimum": 5, "maximum": 4}}, "minimum"),
        ({"json_schema": {"not": {}}}, "not"),
        ({"json_schema": {"type": "string", "pattern": "(?=x)"}}, "look-around"),
        ({"regex": "a", "json_schema": {}}, "give one of them"),
    ],
)
def test_what_is_broken_or_matches_nothing_is_refused_in_one_line_that_says_why(options, reason):
    with pytest.raises(ConfigurationError, match=re.escape(reason)) as refused:
        SamplingConfig(**options)
    assert next(iter(options)) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_grammar_that_is_given_up_on_the_way_says_so_and_is_not_taken_for_an_end():
    with pytest.raises(ConfigurationError, match="too complex"):
        read(b"a" * 300, regex=r"(\w{1,300} ?){1,300}x")


def test_without_the_package_one_sentence_says_how_to_get_it(monkeypatch):
    original = builtins.__import__

    def without(name, *arguments, **options):
        if name == "llguidance":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'blt-llm\[constrain\]'") as missing:
        SamplingConfig(regex="never compiled before")
    assert isinstance(missing.value, BLTError)


def test_it_is_over_exactly_where_nothing_but_the_end_can_come():
    assert [read(data, regex="ab?").is_over for data in (b"", b"a", b"ab")] == [False, False, True]
    assert not read(b"ab").is_over
    certain = read(b"ab", regex="ab?").probabilities(np.full(VOCABULARY_SIZE, -1e9, np.float32))
    assert certain[EOS_ID] == 1


def test_a_byte_that_may_not_come_leaves_nothing_but_the_end():
    assert may_follow(b"x", regex="a+") == {None}
    assert may_follow(b"xa", regex="a+") == {None}


def test_a_fork_reads_for_itself():
    sampler = read(b"a", regex="abc")
    ahead = sampler.fork()
    ahead.read(ord("b") + BYTE_OFFSET)
    zeros = np.zeros(VOCABULARY_SIZE, np.float32)
    assert ahead.choose(zeros) == ord("c") + BYTE_OFFSET
    assert sampler.choose(zeros) == ord("b") + BYTE_OFFSET


def test_a_character_that_the_prompt_left_unfinished_is_completed_before_the_constraint_holds():
    sampler = Sampler(SamplingConfig(temperature=0, regex="ab"), prompt=b"Zo\xc3")
    zeros, data = np.zeros(VOCABULARY_SIZE, np.float32), b""
    while not sampler.is_over:
        chosen = sampler.choose(zeros)
        ahead = sampler.fork()
        sampler.read(chosen)
        ahead.read(chosen)
        assert ahead.choose(zeros) == sampler.choose(zeros)
        data += bytes([chosen - BYTE_OFFSET])
    assert data == b"\x80ab"


def test_a_constraint_goes_before_the_room_for_a_character():
    sampler = Sampler(SamplingConfig(temperature=0, regex="é"))
    assert sampler.choose(np.zeros(VOCABULARY_SIZE, np.float32), room=1) == 0xC3 + BYTE_OFFSET


def test_neither_regex_nor_schema_is_no_constraint():
    assert constraint_of(regex=None, json_schema=None) is None
    assert isinstance(constraint_of(regex="", json_schema=None), Constraint)


def test_a_model_writes_what_matches_and_is_over_when_nothing_can_follow(tiny_lm):
    options = {"regex": r"[a-z]{5} \d\d", "seed": 0, "max_new_bytes": 8}
    found = generate(tiny_lm, "Tom", **options)
    assert re.fullmatch(r"[a-z]{5} \d\d", found.continuation)
    assert found.stopped_by == "eos"
    assert "".join(stream(tiny_lm, "Tom", **options)) == found.continuation


def test_where_the_length_runs_out_the_text_is_a_beginning_and_says_so(tiny_lm):
    found = generate(tiny_lm, "Tom", regex="abcdef", max_new_bytes=3)
    assert (found.continuation, found.stopped_by) == ("abc", "length")


def test_a_stop_string_ends_a_constrained_text_too(tiny_lm):
    found = generate(tiny_lm, "Tom", regex="abcdef", stop="d")
    assert (found.continuation, found.stopped_by) == ("abc", "stop")


@pytest.mark.parametrize(
    ("regex", "room", "expected"),
    [("é", 1, ""), ("aé", 2, "a"), ("aé", 3, "aé"), ("(é|🙂)+", 3, "é"), ("🙂+", 7, "🙂"), ("🙂?", 2, "")],
)
def test_where_the_length_runs_out_no_half_of_a_character_stands(tiny_lm, regex, room, expected):
    for prompt, options in (("Tom", {}), (b"Tom \xc3", {"prompt_lacks": 1})):
        most = room + options.get("prompt_lacks", 0)
        found = generate(tiny_lm, prompt, regex=regex, max_new_bytes=most, temperature=0)
        written = found.new_bytes[options.get("prompt_lacks", 0) :].decode()  # whole characters
        assert written == expected or regex == "(é|🙂)+"
        assert found.stopped_by == ("eos" if re.fullmatch(regex, written) else "length")
        assert "".join(stream(tiny_lm, prompt, regex=regex, max_new_bytes=most, temperature=0)) == found.continuation


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"const": 12345678901234567890}, "12345678901234567890 cannot be kept exact"),
        ({"enum": [1, 9007199254740993]}, "9007199254740993 cannot be kept exact"),
        ({"type": "integer", "minimum": 9007199254740993, "maximum": 9007199254740999}, "cannot be kept exact"),
        ({"type": "array", "items": {"type": "number", "maximum": -1e17}}, "-1e+17 cannot be kept exact"),
        ({"properties": {"a": {"const": {"b": [2**53]}}}}, "9007199254740992 cannot be kept exact"),
        ({"maximum": float("inf")}, "is not JSON"),
        ('{"maximum": Infinity}', "holds Infinity, which is no JSON"),
        ('{"maximum": 1e400}', "cannot be kept exact"),
        ('{"type": "string", "type": "integer"}', "the key 'type' stands twice"),
        ('{"properties": {"a": {}, "a": {"type": "integer"}}}', "the key 'a' stands twice"),
        (
            {
                "type": "object",
                "patternProperties": {"^x[a-b]$": {"type": "integer", "minimum": 0, "maximum": 9}},
                "additionalProperties": False,
                "minProperties": 2,
                "maxProperties": 2,
            },
            "minProperties 2 where names are free",
        ),
        ({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2}, "minProperties 2"),
        (
            {"type": "object", "properties": {"a": {"const": "\x01"}}, "additionalProperties": {"type": "string"}},
            "set additionalProperties to false",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_schema_that_would_be_followed_otherwise_than_it_says_is_refused(schema, said):
    for given_as in (schema, schema if isinstance(schema, str) else json.dumps(schema)):
        with pytest.raises(ConfigurationError) as refused:
            SamplingConfig(json_schema=given_as)
        assert said in str(refused.value) or "Infinity" in str(given_as)


def is_allowed(schema, text):
    """Whether a constraint lets a text be written, and end."""
    constraint = constraint_of(regex=None, json_schema=schema)
    for byte_id in (byte + BYTE_OFFSET for byte in text.encode()):
        if constraint.penalties()[byte_id] < 0:
            return False
        constraint.read(byte_id)
    return constraint.penalties()[EOS_ID] == 0


@pytest.mark.parametrize(
    ("described", "misspelt"),
    [
        ({"properties": {"a": {"type": "integer"}}}, r'{"\u0061":"x"}'),
        ({"properties": {"é/": {"type": "integer"}}}, r'{"\u00e9/":"x"}'),
        ({"properties": {'a"\n': {"type": "integer"}}}, r'{"a\u0022\n":"x"}'),
        ({"properties": {"a\n": {"type": "integer"}}}, r'{"a\u000a":"x"}'),
        ({"patternProperties": {"^x": {"type": "integer"}}}, r'{"\u0078y":"x"}'),
    ],
    ids=str,
)
def test_no_further_property_spells_a_described_name_by_escapes(described, misspelt):
    schema = {"type": "object", **described, "additionalProperties": {"type": "string"}}
    assert not is_allowed(schema, misspelt)
    assert is_allowed(schema, '{"b\\n":"x\\"\\\\"}')
    name = json.loads(misspelt).popitem()[0]
    assert is_allowed(schema, json.dumps({name: 1}, ensure_ascii=False, separators=(",", ":")))


def test_control_characters_are_written_by_the_escapes_that_they_need():
    assert is_allowed({"const": "\x01"}, r'"\u0001"')
    assert is_allowed({"type": "object", "properties": {"\x02": {}}, "additionalProperties": False}, r'{"\u0002":1}')


def test_numbers_up_to_2_to_the_53_come_out_as_they_are(tiny_lm):
    for number in (2**53 - 1, 1 - 2**53, 0.1, 1e15):
        found = generate(tiny_lm, "", json_schema={"const": number}, max_new_bytes=40)
        assert json.loads(found.continuation) == number
    schema = {"type": "integer", "minimum": 2**53 - 4, "maximum": 2**53 - 1}
    found = {
        json.loads(generate(tiny_lm, "", json_schema=schema, seed=seed, temperature=3).continuation)
        for seed in range(9)
    }
    assert found <= set(range(2**53 - 4, 2**53))
    assert len(found) > 1


def test_large_numbers_that_say_nothing_of_what_is_written_are_left_alone():
    SamplingConfig(json_schema={"type": "integer", "default": 2**60, "examples": [2**60]})
    SamplingConfig(json_schema={"type": "object", "properties": {"default": {"type": "string"}}})
