"""How likely the model found what was written, and what else could have come."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blt.codec import BYTE_OFFSET, EOS_ID
from blt.lm import likeliest_bytes


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A byte that could come at some place."""

    byte: int | None
    """0 to 255; None: the end of the text."""
    logprob: float
    """Natural logarithm of its probability under the model, before temperature, masks and the rest of sampling."""


@dataclass(frozen=True, kw_only=True)
class ByteLogprob:
    """A byte that was written, and what else could have come in its place."""

    byte: int | None
    """0 to 255; None: the end of the text."""
    logprob: float
    """Natural logarithm of its probability under the model, before temperature, masks and the rest of sampling."""
    top: tuple[Alternative, ...]
    """The likeliest, best first, as many as were asked for; the byte that was written may be among them."""


def byte_logprob(logits: npt.NDArray[np.float32], byte_id: int, *, num_top: int) -> ByteLogprob:
    """Return the log-probability of a byte, and the likeliest alternatives.

    Args:
        logits: of all 260 ids, as the model gave them.
        byte_id: the byte that was chosen, or EOS.
        num_top: how many of the likeliest to give.
    """
    logprobs = logits.astype(np.float64)
    logprobs -= logprobs.max()
    logprobs -= np.log(np.exp(logprobs).sum())
    (likeliest,) = likeliest_bytes(logprobs[None], num_top)
    top = tuple(Alternative(byte=each, logprob=logprob) for each, logprob in likeliest)
    byte = None if byte_id == EOS_ID else byte_id - BYTE_OFFSET
    return ByteLogprob(byte=byte, logprob=float(logprobs[byte_id]), top=top)
