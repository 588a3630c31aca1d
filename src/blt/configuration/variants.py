"""The classes that a type stands for: variants of a tagged union, and the dataclass within an annotation."""

import dataclasses
import functools
import operator
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

TAGS: dict[type, str] = {}


def variant(tag: str) -> Callable[[type[T]], type[T]]:
    """Name a class of a tagged union; `type = "tag"` in a file chooses it."""

    def register(cls: type[T]) -> type[T]:
        TAGS[cls] = tag
        return cls

    return register


def tag_of(value: object) -> str:
    """Return the tag under which the value's class was registered."""
    return TAGS[type(value)]


def variants_of(cls: Any) -> list[type]:
    """Return the tagged classes that a type stands for."""
    members = typing.get_args(cls) if is_union(cls) else (cls,)
    return [member for member in members if member in TAGS]


def is_union(hint: Any) -> bool:
    """Whether an annotation is a union."""
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def dataclass_part(hint: Any) -> Any:
    """Return the dataclass, or union of dataclasses, within an annotation; None without one."""
    members = typing.get_args(hint) if is_union(hint) else (hint,)
    classes: list[Any] = [member for member in members if dataclasses.is_dataclass(member)]
    if not classes:
        return None
    return functools.reduce(operator.or_, classes)


def default_of(field: "dataclasses.Field[Any]", of: Any = None) -> Any:
    """Return a field's default: the value of an instance if one is given."""
    if of is not None:
        return getattr(of, field.name)
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()
