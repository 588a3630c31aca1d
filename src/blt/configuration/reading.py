"""Configurations from plain values of TOML or JSON, and back; `with_overrides` sets dotted keys."""

import dataclasses
import functools
import operator
import typing
from collections.abc import Mapping
from typing import Any

from blt.configuration.checks import MAX_COUNT, check, check_known, did_you_mean, join, shown
from blt.configuration.former_names import with_current_keys
from blt.configuration.variants import TAGS, dataclass_part, default_of, is_union, variants_of
from blt.errors import ConfigurationError

MAX_PATH_PARTS = 32
"""How many names a dotted path may have."""


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a configuration into plain values for JSON or TOML; a tagged class gets its `type` first.

    None is left out where it is the default, and is the word "none" otherwise: TOML has no null.
    """
    tag = TAGS.get(type(config))
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
    variants = variants_of(cls)
    if variants:
        values = dict(values)
        by_default = TAGS.get(type(default)) if values else None
        cls = _choose(variants, values.pop("type", by_default), where)
    default = default if type(default) is cls else None
    hints = typing.get_type_hints(cls)
    values = with_current_keys(cls, values, where)
    defaults = {field.name: default_of(field, default) for field in dataclasses.fields(cls)}
    check_known(values, defaults, where=where)
    built = {key: _convert(hints[key], value, join(where, key), defaults[key]) for key, value in values.items()}
    for field in dataclasses.fields(cls):
        if default is not None:
            built.setdefault(field.name, defaults[field.name])
        elif field.name not in built and _is_required(field):
            raise ConfigurationError(f"{join(where, field.name)}: missing; it has no default")
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
            single = join(where, head)
            raise ConfigurationError(
                f"{single}.{rest}: {single} is a single value, {shown(inner)}, and has no field {rest!r}"
            )
        result[head] = with_overrides(inner, {rest: value}, where=join(where, head))
    return result


def dotted(tree: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Return the single values of a tree of plain values by their dotted paths, as `with_overrides` takes them."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(dotted(value, prefix=f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _choose(variants: list[type], tag: Any, where: str) -> type:
    by_tag = {TAGS[cls]: cls for cls in variants}
    if tag is None and len(variants) == 1:
        return variants[0]
    if not isinstance(tag, str) or tag not in by_tag:
        known = ", ".join(by_tag)
        raise ConfigurationError(
            f"{join(where, 'type')}: {shown(tag)} is none of {known}{did_you_mean(shown(tag), by_tag)}"
        )
    return by_tag[tag]


def _convert(hint: Any, value: Any, where: str, default: Any = None) -> Any:
    """Return `value` as the type that the field wants; strings from the command line are read as that type."""
    if is_union(hint) and type(None) in typing.get_args(hint):
        if value is None or value == "none":
            return None
        rest = tuple(member for member in typing.get_args(hint) if member is not type(None))
        hint = functools.reduce(operator.or_, rest)
    inner = dataclass_part(hint)
    if inner is not None:
        return value if isinstance(value, inner) else from_dict(inner, value, where=where, default=default)
    if is_union(hint):
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
