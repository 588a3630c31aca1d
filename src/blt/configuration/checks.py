"""What a configuration refuses, in one line: the key, the value and the way out."""

import difflib
import math
from collections.abc import Collection, Iterable
from typing import Any

from blt.errors import ConfigurationError

MAX_COUNT = 2**62
"""The largest whole number that a configuration takes; what is counted fits into 64 bits."""


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
            raise ConfigurationError(f"{join(where, name)}: unknown {what}{did_you_mean(name, known)}")


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


def join(where: str, key: str) -> str:
    """Return a dotted path."""
    return f"{where}.{key}" if where else key


def did_you_mean(key: str, known: Any) -> str:
    """Return the end of a message on an unknown name: the known one that is nearest, or all."""
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"
