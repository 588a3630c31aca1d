"""How long work tells how far it is."""

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""Called with what is done so far, and how much there is in all; of what, the function says that takes it."""
