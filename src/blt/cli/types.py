"""Types of options: whatever is given, it is a value that can be used, or it is refused in one line."""

import math
from typing import Any

import click

MAX_COUNT = 2**31 - 1
"""The largest number of bytes, documents or draws that an option takes."""
MAX_SEED = 2**64 - 1
"""The largest seed that PyTorch takes."""
DTYPES = {
    "float32": "float32",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "int8": "int8",
    "int4": "int4",
}
"""Every name of a type of weights, and what it means."""


class Count(click.ParamType):  # type: ignore[type-arg]
    """A whole number in a range; the largest that is possible is far above what anybody means, so no help names it."""

    name = "integer"

    def __init__(self, min: int | None = 1, max: int = MAX_COUNT) -> None:
        """Set the range.

        Args:
            min: the smallest number; without it, whoever reads the number refuses what is too small, in its own words.
            max: the largest.
        """
        self.min, self.max = min, max

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or refuse the value."""
        number = int(click.INT.convert(value, param, ctx))
        if self.min is not None and number < self.min:
            self.fail(f"{number} is not in the range x>={self.min}.", param, ctx)
        if number > self.max:
            self.fail(f"{number} is not in the range x<={self.max}.", param, ctx)
        return number


class Counts(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers from 1 on, divided by commas."""

    name = "integers"

    def __init__(self, max: int = MAX_COUNT) -> None:
        self.count = Count(max=max)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers, or refuse the value."""
        if isinstance(value, tuple):
            return value
        return tuple(self.count.convert(part.strip(), param, ctx) for part in str(value).split(","))


class Number(click.ParamType):  # type: ignore[type-arg]
    """A number that is finite."""

    name = "number"

    def __init__(self, min: float | int | None = None) -> None:
        self.min = min

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or refuse the value."""
        number = float(click.FLOAT.convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        if self.min is not None and number < self.min:
            self.fail(f"{number} is not in the range x>={self.min:g}.", param, ctx)
        return number


class Name(click.ParamType):  # type: ignore[type-arg]
    """The name of a file, folder, model or field."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, or refuse the value."""
        name = str(value)
        if not name:
            self.fail("an empty text cannot be a name.", param, ctx)
        return name


class Dtype(click.Choice):  # type: ignore[type-arg]
    """A type of weights, by the name that PyTorch gives it or by its short one."""

    def __init__(self, *dtypes: str) -> None:
        super().__init__([name for name, dtype in DTYPES.items() if dtype in dtypes])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name that PyTorch gives the type."""
        return DTYPES[super().convert(value, param, ctx)]


class File(click.File):
    """A file, opened where its name can be one; `-` is a standard stream."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the open file, or refuse the name."""
        return super().convert(Name().convert(value, param, ctx), param, ctx)
