"""Patches as a person reads them."""

from dataclasses import dataclass

from blt.codec import decode_bytes
from blt.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class ShownPatch:
    """One patch of a text."""

    data: bytes
    """Its bytes; empty for the patch that holds only BOS."""
    entropies: tuple[float, ...]
    """Uncertainty about the byte after each of its ids, in nats; empty without an entropy model."""
    is_complete: bool
    """Whether the patch ended; only the last can be open."""

    @property
    def text(self) -> str:
        """Its bytes as text, U+FFFD for bytes that are none."""
        return self.data.decode("utf-8", errors="replace")


def show_patches(
    byte_ids: Int[Tensor, " T"], ends: Bool[Tensor, " T"], entropies: Float[Tensor, " T"] | None
) -> list[ShownPatch]:
    """Cut one row of ids after every end."""
    shown = []
    stops = [*(ends.nonzero()[:, 0] + 1).tolist(), len(byte_ids)]
    start = 0
    for stop in stops:
        if stop > start:
            values = () if entropies is None else tuple(entropies[start:stop].tolist())
            data = decode_bytes(byte_ids[start:stop])
            shown.append(ShownPatch(data=data, entropies=values, is_complete=bool(ends[stop - 1])))
        start = stop
    return shown
