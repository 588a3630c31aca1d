"""Text that matches a regular expression or a JSON schema, by masks over the next byte.

The grammar is llguidance's. It is given a vocabulary of 256 bytes and EOS, so that its states lie between bytes, where
the model's do too: there are no tokens whose boundaries would have to be healed.
"""

import functools
import json
import re
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from blt.codec import BOS_ID, BYTE_OFFSET, EOS_ID, VOCABULARY_SIZE
from blt.errors import ConfigurationError, MissingExtraError

_JSON_OPTIONS = {"whitespace_pattern": " ?"}
"""At most one space between the parts of JSON, since a small model may write spaces for ever; a schema's own
`x-guidance` comes before this."""
_SHORT_ESCAPES = 'nrbtf"\\'
"""No escape such as `\\u0061`: in the name of a further property it would spell a name that the schema describes, past
what the schema says of it."""
_UNICODE_ESCAPES = re.compile(r"\\u00[01]|\x7f")
"""What only such an escape can write, as `json.dumps` writes it: control characters without a short form."""

MAX_EXACT = 2**53 - 1
"""The largest whole number of which no neighbour has the same 64-bit float."""
_UNREAD = ("default", "examples", "description", "title", "$comment")
"""Keywords of a schema that say nothing of what may be written."""


class Constraint:
    """Follows what is written, and knows which bytes may come next.

    Args:
        matcher: llguidance's, which becomes this object's own.
    """

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher
        self._penalties: npt.NDArray[np.float64] | None = None
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether no byte may come any more."""
        self.penalties()
        return self._is_over

    def penalties(self) -> npt.NDArray[np.float64]:
        """Return what to add to the logits of all 260 ids: 0 for those that may come, −∞ elsewhere; not to be changed.

        EOS may come where the text matches, and where nothing else may.

        Raises:
            ConfigurationError: the grammar is too complex to be followed.
        """
        if self._penalties is None:
            allowed = b"" if self._is_over else self._matcher.compute_logit_bias()
            self._is_over = not any(allowed[BYTE_OFFSET:])
            if self._is_over:
                self._refuse_if_too_complex()
                self._penalties = _ONLY_EOS
            else:
                self._penalties = np.where(np.frombuffer(allowed, np.uint8) > 0, 0.0, -np.inf)
        return self._penalties

    def read(self, byte_id: int) -> None:
        """Advance the grammar by the id of a byte; after one that it does not allow, it allows nothing.

        Raises:
            ConfigurationError: the grammar is too complex to be followed.
        """
        may_come = self.penalties()[byte_id] == 0
        self._penalties = None
        if not may_come:
            self._is_over = True
        else:
            self._matcher.consume_token(byte_id)
            self._refuse_if_too_complex()

    def fork(self) -> "Constraint":
        """Return an independent copy."""
        copy = Constraint(self._matcher.deep_copy())
        copy._penalties, copy._is_over = self._penalties, self._is_over
        return copy

    def _refuse_if_too_complex(self) -> None:
        """Raise if the grammar was given up as too complex, rather than exhausted."""
        error = self._matcher.get_error()
        if error and not error.startswith("NoExtension"):
            raise ConfigurationError(f"the regex or JSON schema is too complex ({_reason(error)}); simplify it")


_ONLY_EOS = np.full(VOCABULARY_SIZE, -np.inf)
_ONLY_EOS[EOS_ID] = 0.0
_ONLY_EOS.setflags(write=False)


def constraint_of(*, regex: str | None, json_schema: str | dict[str, Any] | None) -> Constraint | None:
    r"""Return a constraint where nothing has been written yet; None where there is neither regex nor schema.

    Args:
        regex: in the syntax of Rust's crate `regex`: no look-around, no back-references, and `\d` is a digit of
            any script. All that is written matches.
        json_schema: as a dict or as JSON; {} is any JSON.

    Raises:
        ConfigurationError: both are given, one is broken or uses what llguidance lacks, or nothing can match it.
        MissingExtraError: the package `llguidance` is not installed.
    """
    if regex is None and json_schema is None:
        return None
    if regex is not None and json_schema is not None:
        raise ConfigurationError("regex and json_schema: give one of them")
    if regex is not None:
        return Constraint(_compiled("regex", regex).deep_copy())
    return Constraint(_compiled("json_schema", _schema_text(json_schema)).deep_copy())


def _schema_text(schema: Any) -> str:
    """Return a schema as JSON text of an object."""
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema, allow_nan=False)
        read = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
        read = {} if read is True else read
        text = json.dumps(read)
        if not isinstance(read, dict):
            raise ConfigurationError(f"json_schema: expected a JSON object, got {text[:60]}; {{}} is any JSON")
        _refuse_inexact(read)
        if _UNICODE_ESCAPES.search(text):
            _refuse_free_names(read)
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"json_schema: is not JSON ({error})") from None
    return text


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise ConfigurationError(f"json_schema: the key {twice[:60]!r} stands twice in one object; leave one")
    return dict(pairs)


def _refuse_constant(name: str) -> None:
    raise ConfigurationError(f"json_schema: holds {name}, which is no JSON")


def _refuse_inexact(value: Any, *, is_schema: bool = True) -> None:
    """Refuse what llguidance would follow, but not as the schema says.

    It computes with 64-bit floats, so that whole numbers from 2^53 on come out as their neighbours. And it does not
    keep the names of an object's further properties apart: one may come twice, and counts once for whoever reads it.

    Args:
        value: a schema, a part of one, or data inside of one.
        is_schema: whether its keys may be keywords.
    """
    if isinstance(value, list):
        for item in value:
            _refuse_inexact(item, is_schema=is_schema)
    elif isinstance(value, dict):
        if is_schema:
            _refuse_names_that_count(value)
        for key, item in value.items():
            if key not in _UNREAD or not is_schema:
                _refuse_inexact(item, is_schema=is_schema and key not in ("const", "enum"))
    elif isinstance(value, int | float) and abs(value) > MAX_EXACT:
        raise ConfigurationError(
            f"json_schema: {str(value)[:40]} cannot be kept exact; numbers go up to {MAX_EXACT} (2^53 - 1), so give it "
            "as a string, or as a regex"
        )


def _refuse_names_that_count(schema: dict[str, Any]) -> None:
    """Refuse a least number of properties that names which come twice would fall short of."""
    least, required = schema.get("minProperties", 0), schema.get("required", [])
    is_open = schema.get("additionalProperties") is not False or schema.get("patternProperties")
    is_counted = isinstance(least, int) and isinstance(required, list) and least > max(1, len(required))
    if is_counted and is_open:
        raise ConfigurationError(
            f"json_schema: minProperties {least} where names are free: one may come twice; list the names in "
            "'required', or set additionalProperties to false"
        )


def _refuse_free_names(value: Any) -> None:
    """Refuse free names beside described ones, where escapes are allowed that could spell a described name."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_free_names(item)
    if not isinstance(value, dict) or not isinstance(value.get("properties"), dict) or not value["properties"]:
        return
    if value.get("additionalProperties") is not False or value.get("patternProperties"):
        raise ConfigurationError(
            "json_schema: control characters in a schema whose objects may have further properties cannot be kept "
            "exact; set additionalProperties to false"
        )


@functools.lru_cache(maxsize=64)
def _compiled(kind: str, text: str) -> Any:
    """Return a matcher that has read nothing, to be copied."""
    llguidance = _llguidance()
    make = llguidance.LLMatcher
    try:
        options = {} if _UNICODE_ESCAPES.search(text) else {"json_allowed_escapes": _SHORT_ESCAPES}
        grammar = (
            make.grammar_from_regex(text)
            if kind == "regex"
            else make.grammar_from_json_schema(text, _JSON_OPTIONS | options)
        )
        matcher = make(_tokenizer(), grammar, log_level=0)
    except ValueError as error:  # of which UnicodeEncodeError, for lone surrogates, is one
        raise ConfigurationError(f"{kind}: {text!r} cannot be used ({_reason(str(error))})") from None
    if matcher.is_error():
        raise ConfigurationError(f"{kind}: {text!r} cannot be used ({_reason(matcher.get_error())})")
    if Constraint(matcher.deep_copy()).is_over and not matcher.is_accepting():
        raise ConfigurationError(f"{kind}: {text!r} cannot be used (no text matches it)")
    return matcher


@functools.cache
def _tokenizer() -> Any:
    """Return the vocabulary to llguidance: 256 bytes, EOS, and special ids that no grammar asks for."""
    llguidance = _llguidance()
    return llguidance.LLTokenizer(
        llguidance.TokenizerWrapper(_Vocabulary()), n_vocab=VOCABULARY_SIZE, eos_token=EOS_ID, slices=[]
    )


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    eos_token_id = EOS_ID
    bos_token_id = BOS_ID
    special_token_ids = tuple(range(BYTE_OFFSET))
    tokens = (*(b"\xff<special %d>" % special for special in range(BYTE_OFFSET)), *(bytes([b]) for b in range(256)))

    def __call__(self, text: bytes) -> list[int]:
        return [byte + BYTE_OFFSET for byte in text]


def _llguidance() -> ModuleType:
    try:
        import llguidance
    except ImportError:
        purpose = "generation by a regular expression or JSON schema"
        raise MissingExtraError("llguidance", extra="constrain", purpose=purpose) from None
    return llguidance


def _reason(message: str) -> str:
    """Return the one line of a message that says what was wrong."""
    stated = re.search(r"^error: (.+)$", message, flags=re.MULTILINE)
    first = message.strip().partition("\n")[0]
    return stated[1] if stated else re.sub(r"^at \d+\(\d+\): (invalid regex \".*\" \(in regex\): )?", "", first)
