"""Requests as OpenAI's API describes them: every field is read, or refused with a way out."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from blt.codec import BOS_ID, BYTE_OFFSET, VOCABULARY_SIZE, to_bytes
from blt.configuration import check, check_known, shown

MAX_STOPS = 16
MAX_CHOICES = 128


class _Strict(BaseModel):
    """An object whose every key is known, and whose values have the types that JSON gives them."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Fields of OpenAI's API that nothing here would read, and the values that ask for nothing."""

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        known = dict(values)
        for name, inert in cls.unsupported.items():
            if name in known:
                value = known.pop(name)
                is_inert = value is None or any(type(value) is type(one) and value == one for one in inert)
                check(is_inert, f"{name}: this server does not support it; leave it out")
        names = [field.alias or name for name, field in cls.model_fields.items()]
        check_known(known, names, what="field")
        return known


def _texts(value: Any) -> Any:
    """Take one stop string or several."""
    if value is None:
        return ()
    found = [value] if isinstance(value, str) else value
    is_list = isinstance(found, list) and all(isinstance(one, str) for one in found)
    check(is_list, f"expected a text or a list of texts, got {shown(value)}")
    check(len(found) <= MAX_STOPS, f"at most {MAX_STOPS} stop strings, got {len(found)}")
    for one in found:
        check(bool(one), "an empty stop string would stop at once; leave it out")
        _whole(one)
    return tuple(found)


def _whole(text: str) -> str:
    """Refuse half of a character of two UTF-16 units, which no text can hold."""
    is_whole = not any("\ud800" <= character <= "\udfff" for character in text)
    check(is_whole, "holds a lone surrogate, which is no character; send bytes as ids (byte b is b + 4)")
    return text


def _biases(value: Any) -> Any:
    if value is None:
        return None
    check(isinstance(value, dict), f"expected an object of ids and numbers, got {shown(value)}")
    found = {}
    for key, bias in value.items():
        check(key.isascii() and key.isdecimal() and len(key) < 10, f"{shown(key)} is no id; byte b has the id b + 4")
        is_number = isinstance(bias, int | float) and not isinstance(bias, bool)
        check(is_number, f"of id {key}: expected a number, got {shown(bias)}")
        found[int(key)] = bias
    return found


Text = Annotated[str, AfterValidator(_whole)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Stops = Annotated[
    tuple[str, ...],
    BeforeValidator(_texts),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": MAX_STOPS},
                {"type": "null"},
            ]
        }
    ),
]
Biases = Annotated[
    dict[int, float | int] | None,
    BeforeValidator(_biases),
    WithJsonSchema(
        {"anyOf": [{"type": "object", "additionalProperties": {"type": "number"}}, {"type": "null"}]},
    ),
]


class StreamOptions(_Strict):
    """What a stream holds besides the text."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {"include_obfuscation": (False,)}

    include_usage: bool | None = None
    """End with a chunk that counts bytes, and has no choices."""


class JSONSchema(_Strict):
    """A schema that the answer follows."""

    name: Text
    """Its name, which nothing depends on."""
    description: Text | None = None
    """Read by nobody: the model sees the prompt alone."""
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    """The schema; without it, any JSON."""
    strict: bool | None = None
    """The answer follows the schema either way."""


class ResponseFormat(_Strict):
    """What form the answer has."""

    type: Literal["text", "json_object", "json_schema"]
    """Any text, any JSON, or JSON that a schema admits."""
    json_schema: JSONSchema | None = None
    """With the type `json_schema`."""

    @model_validator(mode="after")
    def _check(self) -> "ResponseFormat":
        is_schema = self.type == "json_schema"
        check(is_schema == (self.json_schema is not None), "response_format: json_schema goes with its type alone")
        return self


class SamplingFields(_Strict):
    """How a text is continued, for completions and chats alike. Lengths are bytes."""

    model: Text | None = Field(default=None, description="The model that is served; may be left out.")
    max_tokens: Count | None = Field(default=None, description="Bytes to write at most; 300 if not given.")
    temperature: float | None = Field(default=None, ge=0, description="1 if not given; 0 is greedy.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Among the likeliest bytes of this total.")
    top_k: int | None = Field(default=None, ge=1, le=257, description="Choose among the k likeliest bytes.")
    min_p: float | None = Field(default=None, ge=0, le=1, description="Least share of the likeliest's probability.")
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES, description="Choices; number i has the seed + i.")
    seed: int | None = Field(default=None, ge=0, le=2**63 - 1, description="Equal seeds give equal texts.")
    stop: Stops = Field(default=(), description="Stop where one of these is complete, which is left out.")
    stream: bool | None = Field(default=None, description="Send the text as it is written, as events.")
    stream_options: StreamOptions | None = None
    logit_bias: Biases = Field(default=None, description="Added to the logits of ids (byte b is b + 4, the end 2).")
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, description="On bytes that were written.")
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, description="For each time they were written.")
    repetition_penalty: float | None = Field(default=None, ge=0.001, le=1000, description="1 is none.")
    repetition_window: int | None = Field(default=None, ge=1, le=2**31 - 1, description="Of the last bytes alone.")
    regex: Text | None = Field(default=None, description="The answer matches this as a whole.")
    json_schema: dict[str, Any] | None = Field(default=None, description="The answer is JSON that this admits.")
    response_format: ResponseFormat | None = None
    valid_utf8: bool | None = Field(default=None, description="Keep the text UTF-8; if not given, if the prompt is.")
    threshold_factor: float | None = Field(
        default=None, ge=0.25, le=4, description="What the patch rule's thresholds are multiplied by; 1 if not given."
    )
    return_bytes: bool | None = Field(default=None, description="Tell the exact bytes of each piece as `hex`.")
    user: Text | None = Field(default=None, description="Who asks; neither read nor logged.")


def _prompts(value: Any) -> Any:
    """Take a text, texts, ids, or lists of ids; return the ids of each, or the bytes of a text."""
    if value is None:
        value = ""
    if isinstance(value, str):
        return (Prompt.of_text(value),)
    check(isinstance(value, list) and bool(value), f"expected a text, ids, or a list of them, got {shown(value)}")
    if isinstance(value[0], int):
        return (Prompt.of_ids(value),)
    check(len(value) <= MAX_CHOICES, f"at most {MAX_CHOICES} prompts in one request, got {len(value)}")
    kind = "texts" if isinstance(value[0], str) else "lists of ids"
    check(all(isinstance(one, str if kind == "texts" else list) for one in value), f"expected {kind} alone")
    return tuple(Prompt.of_text(one) if isinstance(one, str) else Prompt.of_ids(one) for one in value)


class Prompt(BaseModel):
    """A prompt's bytes."""

    data: bytes
    """Without BOS, which every text is read after."""
    names_bos: bool
    """Whether BOS was given, as the first id; then it has an entry of its own among the log-probabilities."""

    @classmethod
    def of_text(cls, text: str) -> "Prompt":
        """Return the prompt of a text."""
        return cls.model_construct(data=to_bytes(_whole(text)), names_bos=False)

    @classmethod
    def of_ids(cls, ids: list[Any]) -> "Prompt":
        """Return the prompt of ids."""
        names_bos = bool(ids) and type(ids[0]) is int and ids[0] == BOS_ID
        rest = ids[1:] if names_bos else ids
        for one in rest:
            is_byte = type(one) is int and BYTE_OFFSET <= one < VOCABULARY_SIZE
            check(is_byte, f"{shown(one)} is no id of a byte (b + 4); BOS ({BOS_ID}) may stand first")
        return cls.model_construct(data=bytes(one - BYTE_OFFSET for one in rest), names_bos=names_bos)


_ID = {"type": "integer", "minimum": 1, "maximum": VOCABULARY_SIZE - 1}
Prompts = Annotated[
    tuple[Prompt, ...],
    BeforeValidator(_prompts),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_CHOICES},
                {"type": "array", "items": _ID, "minItems": 1},
                {"type": "array", "items": {"type": "array", "items": _ID}, "minItems": 1, "maxItems": MAX_CHOICES},
            ]
        }
    ),
]


class CompletionRequest(SamplingFields):
    """Continue prompts."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {"suffix": ("",)}

    prompt: Prompts = Field(description="A text, texts, ids, or lists of ids; byte b has the id b + 4.")
    echo: bool | None = Field(default=None, description="Begin with the prompt.")
    logprobs: int | None = Field(
        default=None, ge=0, le=257, description="Return each byte's log-probability, and those of the n likeliest."
    )
    best_of: int | None = Field(
        default=None, ge=1, le=MAX_CHOICES, description="Write this many, answer the n likeliest per byte."
    )


class ContentPart(_Strict):
    """A part of a message."""

    type: Literal["text"]
    text: Text


def _only_text(content: Any) -> Any:
    """Refuse parts that are no text."""
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, dict) else None
        check(kind == "text", f"a part of type {shown(kind)}, of which this server reads text alone; leave it out")
    return content


class Message(_Strict):
    """What somebody has said."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        name: ([],) for name in ("name", "refusal", "tool_calls", "function_call", "audio", "annotations")
    }

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Text | list[ContentPart], BeforeValidator(_only_text)]


class ChatRequest(SamplingFields):
    """Answer in a conversation."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "parallel_tool_calls": (True, False),
        "functions": ([],),
        "function_call": ("none",),
        "audio": (),
        "modalities": (["text"],),
        "prediction": (),
        "reasoning_effort": ("none",),
        "verbosity": (),
        "web_search_options": (),
        "store": (False,),
        "metadata": ({},),
        "service_tier": ("auto", "default"),
        "moderation": (),
        "prompt_cache_key": (),
        "prompt_cache_options": (),
        "prompt_cache_retention": (),
        "safety_identifier": (),
    }

    messages: list[Message] = Field(min_length=1, max_length=1000)
    max_completion_tokens: Count | None = Field(default=None, description="The same as max_tokens.")
    logprobs: bool | None = Field(default=None, description="Tell each byte's log-probability.")
    top_logprobs: int | None = Field(default=None, ge=0, le=257, description="And those of the n likeliest bytes.")


class TokenizeRequest(_Strict):
    """Turn a text into ids."""

    model: Text | None = None
    prompt: Text
    add_special_tokens: bool = Field(default=True, description="Put BOS in front.")


class DetokenizeRequest(_Strict):
    """Turn ids into a text."""

    model: Text | None = None
    tokens: list[Annotated[int, Field(ge=0, lt=VOCABULARY_SIZE)]]


def _hex(value: str) -> str:
    try:
        bytes.fromhex(value)
    except ValueError:
        raise ValueError("expected bytes as hexadecimal digits, two for each") from None
    return value


class TextFields(_Strict):
    """A text, or its bytes."""

    text: Text | None = None
    hex: Annotated[str, AfterValidator(_hex)] | None = Field(default=None, description="Bytes, two digits each.")
    rule: dict[str, Any] | None = Field(default=None, description="Patch rule, as in config.json; the model's own.")

    @model_validator(mode="after")
    def _check_one(self) -> "TextFields":
        check((self.text is None) != (self.hex is None), "text, hex: give one of them")
        return self

    @property
    def data(self) -> bytes:
        """The bytes."""
        return bytes.fromhex(self.hex or "") if self.text is None else to_bytes(self.text)


class PatchRequest(TextFields):
    """Show how a text falls into patches."""

    alternatives: int = Field(default=0, ge=0, le=257, description="The n likeliest in place of each byte.")


class AlternativesRequest(TextFields):
    """Show what may follow a text."""

    count: int = Field(default=10, ge=1, le=257)
