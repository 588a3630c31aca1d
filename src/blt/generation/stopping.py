"""Stop strings: found as bytes come, and never partly shown."""

from collections.abc import Sequence


class StopWatch:
    """Passes bytes on until a stop string comes, which is left out.

    Bytes that may be the beginning of a stop string are held back until that is settled.

    Args:
        stops: byte strings, none empty; whichever is complete first wins, the longest of those that end together.
    """

    def __init__(self, stops: Sequence[bytes]) -> None:
        self._stops = sorted(stops, key=len, reverse=True)
        self._held = b""
        self.matched: bytes | None = None
        """The stop string that came."""

    @property
    def has_stopped(self) -> bool:
        """Whether a stop string has come."""
        return self.matched is not None

    def feed(self, data: bytes) -> bytes:
        """Return what may be shown once one more byte has come."""
        assert len(data) == 1
        assert not self.has_stopped
        self._held += data
        for stop in self._stops:
            if self._held.endswith(stop):
                self.matched = stop
                return self._release(len(self._held) - len(stop))
        beginning = max((self._overlap(stop) for stop in self._stops), default=0)
        return self._release(len(self._held) - beginning)

    def finish(self) -> bytes:
        """Return what was held back, once nothing more will come."""
        return b"" if self.has_stopped else self._release(len(self._held))

    def _overlap(self, stop: bytes) -> int:
        """Return how many of the last bytes are the beginning of a stop string."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)

    def _release(self, count: int) -> bytes:
        shown, self._held = self._held[:count], self._held[count:]
        return shown
