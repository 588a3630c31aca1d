"""Former names of fields: files of earlier versions are read by them."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from blt.configuration.checks import join
from blt.configuration.variants import dataclass_part, variants_of
from blt.errors import ConfigurationError

FORMER_NAME = "former name"
"""Key of a field's `metadata`: how the field was called by earlier versions, whose files are still read."""


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
    met = {join(where, key): former[key] for key in values if key in former}
    result = dict(with_current_keys(cls, values, where))
    for key, part in _parts(cls).items():
        if key in result:
            result[key], inner = with_current_names(part, result[key], where=join(where, key))
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
    fields = [field for member in variants_of(cls) or [cls] for field in dataclasses.fields(member)]
    return {field.metadata[FORMER_NAME]: field.name for field in fields if FORMER_NAME in field.metadata}


def _parts(cls: Any) -> dict[str, Any]:
    """Return the class, or union of classes, of each field that is a configuration itself."""
    found: dict[str, Any] = {}
    for member in variants_of(cls) or [cls]:
        for name, hint in typing.get_type_hints(member).items():
            if (part := dataclass_part(hint)) is not None:
                found[name] = part
    return found


def with_current_keys(cls: Any, values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Replace former names of one configuration's own fields."""
    former = _former_names(cls)
    for key in values:
        if key in former and former[key] in values:
            raise ConfigurationError(f"{join(where, key)}: the former name of {former[key]!r}, also given; give one")
    return {former.get(key, key): value for key, value in values.items()}
