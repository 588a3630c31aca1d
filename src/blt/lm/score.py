"""How well a model predicts a text."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blt.shapes import Float, Tensor


@dataclass(frozen=True, eq=False)
class Score:
    """The bits that each byte of one document costs, the end of the document included."""

    bits_by_byte: npt.NDArray[np.float64]
    """One figure per byte, in order, then one for EOS."""

    @classmethod
    def from_nats(cls, nats: Float[Tensor, " T"]) -> "Score":
        """Build from nats per byte, EOS last."""
        return cls(bits_by_byte=nats.double().cpu().numpy() / np.log(2.0))

    @property
    def num_bytes(self) -> int:
        """Bytes of the text; EOS does not count."""
        return len(self.bits_by_byte) - 1

    @property
    def bits(self) -> float:
        """Bits of the whole document, EOS included."""
        return float(self.bits_by_byte.sum())

    @property
    def bits_per_byte(self) -> float:
        """Bits of bytes and EOS, divided by the bytes; infinite for the empty text, whose EOS costs bits too."""
        return self.bits / self.num_bytes if self.num_bytes else float("inf")
