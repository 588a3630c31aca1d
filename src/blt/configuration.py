"""Configurations: frozen dataclasses, read from TOML and JSON, overridden from the command line.

Every configuration is a frozen, keyword-only dataclass beside what it configures. A docstring under a field is its
help text. Variants are a tagged union: subclasses of one base, told apart by the key `type` (`variant` gives a class
its tag). Whatever cannot be is refused here, naming the key, the value and the way out.
"""

import ast
import dataclasses
import difflib
import functools
import inspect
import math
import operator
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from blt.errors import ConfigurationError

T = TypeVar("T")

MAX_COUNT = 2**62
"""The largest whole number that a configuration takes; what is counted fits into 64 bits."""
MAX_PATH_PARTS = 32
"""How many names a dotted path may have."""

FORMER_NAME = "former name"
"""Key of a field's `metadata`: how the field was called by earlier versions, whose files are still read."""

_TAGS: dict[type, str] = {}


def variant(tag: str) -> Callable[[type[T]], type[T]]:
    """Name a class of a tagged union; `type = "tag"` in a file chooses it."""

    def register(cls: type[T]) -> type[T]:
        _TAGS[cls] = tag
        return cls

    return register


def tag_of(value: object) -> str:
    """Return the tag under which the value's class was registered."""
    return _TAGS[type(value)]


def check(condition: bool, message: str) -> None:
    """Refuse a configuration unless the condition holds.

    Raises:
        ConfigurationError: with the message.
    """
    if not condition:
        raise ConfigurationError(message)


def check_range(name: str, value: int | float, low: int | float, high: int | float = MAX_COUNT) -> None:
    """Refuse a number that is not from `low` to `high`, both included; NaN never is.

    Raises:
        ConfigurationError: with the name, the value and the bound.
    """
    if not low <= value <= high:
        bound = f"at most {high:,}" if value > high else f"at least {low:,}"
        raise ConfigurationError(f"{name}: {shown(value)}; {bound}")


def check_rate(name: str, value: int | float) -> None:
    """Refuse a number that is not above 0, or not finite.

    Raises:
        ConfigurationError: with the name and the value.
    """
    check(0 < value < math.inf, f"{name}: {shown(value)}; above 0, and finite")


def check_known(names: Iterable[str], known: Collection[str], *, where: str = "", what: str = "key") -> None:
    """Refuse a name that is not known.

    Raises:
        ConfigurationError: with the known one that is nearest.
    """
    for name in names:
        if name not in known:
            raise ConfigurationError(f"{_join(where, name)}: unknown {what}{_did_you_mean(name, known)}")


def check_path(name: str, value: str | None) -> None:
    """Refuse what cannot name a file or folder; None is not looked at.

    Raises:
        ConfigurationError: with the name and the value.
    """
    if value is None:
        return
    check(bool(value.strip()), f"{name}: {value!r} is empty; name a folder")
    is_text = "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
    check(is_text, f"{name}: {value!r} has characters that no path can have; name a folder")


def shown(value: object) -> str:
    """Return a value as messages show it: bounded, and without failing on numbers of thousands of digits."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} beyond all bounds"
    return text if len(text) <= 200 else f"{text[:100]} … {text[-50:]}"


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a configuration into plain values for JSON or TOML; a tagged class gets its `type` first.

    What is unset is left out if it is unset by default, and is the word "none" otherwise: TOML has no null.
    """
    tag = _TAGS.get(type(config))
    values: dict[str, Any] = {} if tag is None else {"type": tag}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is not None:
            values[field.name] = _plain(value)
        elif field.default is not None:
            values[field.name] = "none"
    return values


def from_dict(cls: Any, values: Any, *, where: str = "", default: Any = None) -> Any:
    """Build a configuration of class `cls` from plain values.

    Args:
        cls: a dataclass, or a union of tagged dataclasses.
        values: what a TOML or JSON file holds; a table of keys, or it is refused.
        where: dotted path of `values`, for messages.
        default: an instance that stands for what is not given: the `type` of a union, and then its values.

    Raises:
        ConfigurationError: an unknown or missing key, a value of another type, or one that the class refuses.
    """
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{where or 'the configuration'}: expected a table of keys, got {shown(values)}")
    variants = _variants(cls)
    if variants:
        values = dict(values)
        by_default = _TAGS.get(type(default)) if values else None
        cls = _choose(variants, values.pop("type", by_default), where)
    default = default if type(default) is cls else None
    hints = typing.get_type_hints(cls)
    values = _with_current_keys(cls, values, where)
    defaults = {field.name: _default_of(field, default) for field in dataclasses.fields(cls)}
    check_known(values, defaults, where=where)
    built = {key: _convert(hints[key], value, _join(where, key), defaults[key]) for key, value in values.items()}
    for field in dataclasses.fields(cls):
        if default is not None:
            built.setdefault(field.name, defaults[field.name])
        elif field.name not in built and _is_required(field):
            raise ConfigurationError(f"{_join(where, field.name)}: missing; it has no default")
    try:
        return cls(**built)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}" if where else str(error)) from None


def with_overrides(values: Mapping[str, Any], overrides: Mapping[str, Any], *, where: str = "") -> dict[str, Any]:
    """Set dotted keys in a tree of plain values: `{"model.encoder.dim": 64}`; the original stays as it is.

    Args:
        values: what a TOML or JSON file holds.
        overrides: dotted path → value; tables that are not there yet are made.
        where: dotted path of `values`, for messages.

    Raises:
        ConfigurationError: a path leads into a single value.
    """
    for path in overrides:
        check(path.count(".") < MAX_PATH_PARTS, f"{shown(path)}: more than {MAX_PATH_PARTS} names; no field is so deep")
    result: dict[str, Any] = {key: dict(v) if isinstance(v, Mapping) else v for key, v in values.items()}
    for path, value in overrides.items():
        head, _, rest = path.partition(".")
        if not rest:
            result[head] = value
            continue
        inner = result.get(head, {})
        if not isinstance(inner, Mapping):
            single = _join(where, head)
            raise ConfigurationError(
                f"{single}.{rest}: {single} is a single value, {shown(inner)}, and has no field {rest!r}"
            )
        result[head] = with_overrides(inner, {rest: value}, where=_join(where, head))
    return result


def with_current_names(cls: Any, values: Any, *, where: str = "") -> tuple[Any, dict[str, str]]:
    """Replace former names of fields, at any depth; `from_dict` reads both, but overrides must meet what they replace.

    Args:
        cls: a dataclass, or a union of them.
        values: what a TOML or JSON file holds.
        where: dotted path of `values`.

    Returns:
        The values, and current name by dotted path of each former name that was met.

    Raises:
        ConfigurationError: a field is given by both its names.
    """
    if not isinstance(values, Mapping):
        return values, {}
    former = _former_names(cls)
    met = {_join(where, key): former[key] for key in values if key in former}
    result = dict(_with_current_keys(cls, values, where))
    for key, part in _parts(cls).items():
        if key in result:
            result[key], inner = with_current_names(part, result[key], where=_join(where, key))
            met |= inner
    return result, met


def with_current_path(cls: Any, path: str) -> str:
    """Return a dotted path with the current name of each field in it."""
    head, dot, rest = path.partition(".")
    head = _former_names(cls).get(head, head)
    part = _parts(cls).get(head)
    return f"{head}{dot}{rest if part is None else with_current_path(part, rest)}"


def _former_names(cls: Any) -> dict[str, str]:
    """Return current name by former name."""
    fields = [field for member in _variants(cls) or [cls] for field in dataclasses.fields(member)]
    return {field.metadata[FORMER_NAME]: field.name for field in fields if FORMER_NAME in field.metadata}


def _parts(cls: Any) -> dict[str, Any]:
    """Return the class, or union of classes, of each field that is a configuration itself."""
    found: dict[str, Any] = {}
    for member in _variants(cls) or [cls]:
        for name, hint in typing.get_type_hints(member).items():
            if (part := _dataclass_part(hint)) is not None:
                found[name] = part
    return found


def _with_current_keys(cls: Any, values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    former = _former_names(cls)
    for key in values:
        if key in former and former[key] in values:
            raise ConfigurationError(f"{_join(where, key)}: the former name of {former[key]!r}, also given; give one")
    return {former.get(key, key): value for key, value in values.items()}


@functools.cache
def field_help(cls: type) -> dict[str, str]:
    """Return each field's help text: the docstring that stands under it, in the class or in its bases."""
    helps: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                helps[field.target.id] = " ".join(str(after.value.value).split())
    return helps


def walk_fields(cls: Any, *, prefix: str = "") -> list[tuple[str, Any, str]]:
    """List every settable key of a configuration as (dotted path, type, help), nested ones and all variants too."""
    rows: list[tuple[str, Any, str]] = []
    for member in _variants(cls) or [cls]:
        hints = typing.get_type_hints(member)
        for field in dataclasses.fields(member):
            inner = _dataclass_part(hints[field.name])
            path = f"{prefix}{field.name}"
            if inner is None:
                rows.append((path, hints[field.name], field_help(member).get(field.name, "")))
            else:
                rows.extend(walk_fields(inner, prefix=f"{path}."))
    return list({row[0]: row for row in rows}.values())


class FieldRow(typing.NamedTuple):
    """One settable key, as a person reads it."""

    path: str
    """Dotted."""
    type: str
    """What may stand there."""
    default: str | None
    """None where there is none, so that the field must be given."""
    variant: str | None
    """Of several classes, the `type` that has this field."""
    help: str
    """Its meaning."""


def describe_fields(cls: Any, *, prefix: str = "", default: Any = dataclasses.MISSING) -> list[FieldRow]:
    """List every settable key with type, default and help; where there are several classes, `type` first.

    Args:
        cls: a dataclass, or a union of them.
        prefix: of the paths.
        default: an instance whose values are the defaults, in place of the class's own.
    """
    rows: list[FieldRow] = []
    variants = _variants(cls)
    if len(variants) > 1:
        tags = [_TAGS[member] for member in variants]
        chosen = _TAGS.get(type(default))
        rows.append(FieldRow(f"{prefix}type", " | ".join(tags), chosen, None, f"Which of {', '.join(tags)}."))
    for member in variants or [cls]:
        tag = _TAGS[member] if len(variants) > 1 else None
        hints = typing.get_type_hints(member)
        for field in dataclasses.fields(member):
            value = getattr(default, field.name) if type(default) is member else _default_of(field)
            path, inner = f"{prefix}{field.name}", _dataclass_part(hints[field.name])
            if inner is not None:
                rows += [
                    row._replace(variant=row.variant or tag)
                    for row in describe_fields(inner, prefix=f"{path}.", default=value)
                ]
            else:
                text = field_help(member).get(field.name, "")
                rows.append(FieldRow(path, _hint_text(hints[field.name]), _value_text(value), tag, text))
    return rows


def _default_of(field: "dataclasses.Field[Any]", of: Any = None) -> Any:
    if of is not None:
        return getattr(of, field.name)
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def _value_text(value: Any) -> str | None:
    if value is dataclasses.MISSING:
        return None
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _hint_text(hint: Any) -> str:
    """Write a type as a person would: `int`, `float or none`, `auto | float32`, `list of int`."""
    if hint is type(None):
        return "none"
    if _is_union(hint):
        return " or ".join(_hint_text(member) for member in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return f"list of {_hint_text(typing.get_args(hint)[0])}"
    return {str: "text", bool: "true | false"}.get(hint, getattr(hint, "__name__", str(hint)))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _variants(cls: Any) -> list[type]:
    members = typing.get_args(cls) if _is_union(cls) else (cls,)
    return [member for member in members if member in _TAGS]


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _dataclass_part(hint: Any) -> Any:
    members = typing.get_args(hint) if _is_union(hint) else (hint,)
    classes: list[Any] = [member for member in members if dataclasses.is_dataclass(member)]
    if not classes:
        return None
    return functools.reduce(operator.or_, classes)


def _choose(variants: list[type], tag: Any, where: str) -> type:
    by_tag = {_TAGS[cls]: cls for cls in variants}
    if tag is None and len(variants) == 1:
        return variants[0]
    if not isinstance(tag, str) or tag not in by_tag:
        known = ", ".join(by_tag)
        raise ConfigurationError(
            f"{_join(where, 'type')}: {shown(tag)} is none of {known}{_did_you_mean(shown(tag), by_tag)}"
        )
    return by_tag[tag]


def _convert(hint: Any, value: Any, where: str, default: Any = None) -> Any:
    """Return `value` as the type that the field wants; strings from the command line are read as that type."""
    if _is_union(hint) and type(None) in typing.get_args(hint):
        if value is None or value == "none":
            return None
        rest = tuple(member for member in typing.get_args(hint) if member is not type(None))
        hint = functools.reduce(operator.or_, rest)
    inner = _dataclass_part(hint)
    if inner is not None:
        return value if isinstance(value, inner) else from_dict(inner, value, where=where, default=default)
    if _is_union(hint):
        return _convert_union(typing.get_args(hint), value, where)
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        choices = typing.get_args(hint)
        matching = [choice for choice in choices if value == choice or value == str(choice)]
        if not matching:
            raise ConfigurationError(f"{where}: {shown(value)} is none of {', '.join(map(str, choices))}")
        return matching[0]
    if origin is tuple:
        return _convert_tuple(typing.get_args(hint), value, where)
    return _convert_scalar(hint, value, where)


def _convert_union(members: tuple[Any, ...], value: Any, where: str) -> Any:
    """Return `value` as the first type that takes it."""
    for member in members:
        try:
            return _convert(member, value, where)
        except ConfigurationError:
            continue
    raise ConfigurationError(f"{where}: expected {' or '.join(map(_name, members))}, got {shown(value)}")


def _convert_tuple(members: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    """Return a list, or the items between the commas of a string, as `tuple[X, ...]` or as `tuple[X, Y]`."""
    items = [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        raise ConfigurationError(f"{where}: expected a list, got {shown(value)}")
    hints = members[:1] * len(items) if members[-1] is Ellipsis else members
    check(len(items) == len(hints), f"{where}: expected {len(hints)} values, got {len(items)}")
    return tuple(_convert(hint, item, where) for hint, item in zip(hints, items, strict=True))


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    number = _plain_scalar(hint, value, where)
    if type(number) is int:
        check(abs(number) <= MAX_COUNT, f"{where}: {shown(number)}; at most {MAX_COUNT:,}")
    return number


def _plain_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is bool and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000:
        return float(value)
    if hint in (int, float) and isinstance(value, str):
        try:
            return hint(value.replace("_", ""))
        except ValueError:
            pass
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) is hint:
        return value
    raise ConfigurationError(f"{where}: expected {_name(hint)}, got {shown(value)}")


def _name(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    return str(getattr(hint, "__name__", hint))


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _did_you_mean(key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"
