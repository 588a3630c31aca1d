"""Rows that the native decoder continues by itself: it chooses bytes, reads them, and checks what was drafted."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from blt.decoder import library as c

GenerationStopped = Literal["eos", "length", "broken"]
"""Why a row is over: the model ended it, nothing more may be written, or its logits are no numbers."""

_STOPPED: tuple[GenerationStopped | None, ...] = (None, "eos", "length", "broken")


@dataclass(frozen=True, kw_only=True)
class PlainSampling:
    """How bytes are chosen where logits, UTF-8 and chance alone decide; see `blt.generation.SamplingConfig`."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    random_state: int
    """Of `blt.generation.random_numbers`."""
    room: int
    """Bytes that may be written; at least 1."""
    utf8_state: int | None
    """Of `blt.generation.utf8`; None where bytes need not be UTF-8."""


class GenerationRow:
    """A row, with all that its next bytes depend on.

    Args:
        row: of the session.
        logits: `V`; of what follows the bytes that it has read.
        sampling: how its bytes are chosen.
        max_draft: bytes to draft at once, to begin with.
    """

    def __init__(
        self, row: int, logits: npt.NDArray[np.float32], sampling: PlainSampling, *, max_draft: int = 0
    ) -> None:
        self.row, self.logits = row, logits
        self.stopped_by: GenerationStopped | None = None
        """Why it is over; None while it is not."""
        self.sampling = c.Sampling(
            temperature=sampling.temperature,
            top_p=sampling.top_p or 0.0,
            min_p=sampling.min_p or 0.0,
            top_k=sampling.top_k or 0,
            random_state=sampling.random_state,
            room=sampling.room,
            chosen=-1,
            num_ahead=max_draft,
            keeps_utf8=sampling.utf8_state is not None,
            utf8=sampling.utf8_state or 0,
        )

    def note(self, sampling: c.Sampling, logits: npt.NDArray[np.float32]) -> None:
        """Record how far it has come."""
        self.sampling, self.logits = c.Sampling.from_buffer_copy(sampling), logits
        self.stopped_by = _STOPPED[sampling.stopped]
