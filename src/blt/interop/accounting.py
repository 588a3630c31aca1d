"""Every argument of a model of other software is used, refused, or told: one way for all readers.

A reader names what it uses. What changes the outputs and cannot be carried over is refused in one line; what is not
known at all is told, since nobody can say here whether it matters. For tensors, `blt.checkpoint.require_names` and
`require_floating_point` do the same.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from blt.errors import ModelFolderError

Tell = Callable[[str], None]
"""Takes one line that the user should read."""
OFF: tuple[object, ...] = (None, False, 0, 0.0, "none", [], {})
"""What an option holds that is not made use of."""


def log(note: str) -> None:
    """Log a warning, which Python shows on standard error unless logging is configured otherwise."""
    logging.getLogger("blt").warning(note)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is known of a table of arguments."""

    used: Collection[str]
    """Read by the reader."""
    only: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    """Arguments that change the outputs, with the values that can be carried over."""
    inert: Collection[str] = ()
    """Arguments that change no outputs, such as those of training."""

    def account(self, values: Mapping[str, Any], *, where: str, tell: Tell) -> None:
        """Refuse what cannot be carried over, and tell what is not known and not off.

        Args:
            values: by name.
            where: file and table, for messages.
            tell: takes a line for all that are not known.

        Raises:
            ModelFolderError: an argument that changes the outputs in a way that this package cannot.
        """
        for name, allowed in self.only.items():
            value = values.get(name)
            if value is not None and value not in allowed:
                kept = " or ".join(map(repr, allowed)) or "none"
                raise ModelFolderError(f"{where}.{name}: {value!r}; only {kept} can be carried over")
        unknown = sorted(
            name for name in values.keys() - {*self.used, *self.only, *self.inert} if values[name] not in OFF
        )
        if unknown:
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            tell(f"{where}: not known here, and left out: {', '.join(unknown[:5])}{more}")
