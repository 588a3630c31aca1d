"""Every settable key of a configuration with type, default and help, as a person reads it."""

import ast
import dataclasses
import functools
import inspect
import textwrap
import typing
from typing import Any

from blt.configuration.variants import TAGS, dataclass_part, default_of, is_union, variants_of


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
    variants = variants_of(cls)
    if len(variants) > 1:
        tags = [TAGS[member] for member in variants]
        chosen = TAGS.get(type(default))
        rows.append(FieldRow(f"{prefix}type", " | ".join(tags), chosen, None, f"Which of {', '.join(tags)}."))
    for member in variants or [cls]:
        tag = TAGS[member] if len(variants) > 1 else None
        hints = typing.get_type_hints(member)
        for field in dataclasses.fields(member):
            value = getattr(default, field.name) if type(default) is member else default_of(field)
            path, inner = f"{prefix}{field.name}", dataclass_part(hints[field.name])
            if inner is not None:
                rows += [
                    row._replace(variant=row.variant or tag)
                    for row in describe_fields(inner, prefix=f"{path}.", default=value)
                ]
            else:
                text = field_help(member).get(field.name, "")
                rows.append(FieldRow(path, _hint_text(hints[field.name]), _value_text(value), tag, text))
    return rows


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
    if is_union(hint):
        return " or ".join(_hint_text(member) for member in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        member = typing.get_args(hint)[0]
        if dataclasses.is_dataclass(member):
            return f"list of tables ({', '.join(field.name for field in dataclasses.fields(member))})"
        return f"list of {_hint_text(member)}"
    return {str: "text", bool: "true | false"}.get(hint, getattr(hint, "__name__", str(hint)))
