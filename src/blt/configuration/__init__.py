"""Configurations: frozen dataclasses, read from TOML and JSON, overridden from the command line.

Every configuration is a frozen, keyword-only dataclass beside what it configures. A docstring under a field is its
help text. Variants are a tagged union: subclasses of one base, told apart by the key `type` (`variant` gives a class
its tag). Whatever cannot be is refused here, naming the key, the value and the way out.
"""

from blt.configuration.checks import check, check_known, check_path, check_range, check_rate, shown
from blt.configuration.description import FieldRow, describe_fields, field_help
from blt.configuration.former_names import FORMER_NAME, with_current_names, with_current_path
from blt.configuration.reading import dotted, from_dict, to_dict, with_overrides
from blt.configuration.variants import tag_of, variant

__all__ = [
    "FORMER_NAME",
    "FieldRow",
    "check",
    "check_known",
    "check_path",
    "check_range",
    "check_rate",
    "describe_fields",
    "dotted",
    "field_help",
    "from_dict",
    "shown",
    "tag_of",
    "to_dict",
    "variant",
    "with_current_names",
    "with_current_path",
    "with_overrides",
]
