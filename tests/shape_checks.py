"""Shape checks of jaxtyping, which make thousands of small steps some ten times as slow, switched off for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import jaxtyping


@contextmanager
def shape_checks(*, on: bool) -> Iterator[None]:
    """Check shapes within it, or check none."""
    was_off = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", not on)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", was_off)
