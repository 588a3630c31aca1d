"""The likeliest next bytes."""

import numpy as np
import numpy.typing as npt

from blt.codec import BYTE_OFFSET, EOS_ID, VOCABULARY_SIZE

_CAN_COME = np.array([EOS_ID, *range(BYTE_OFFSET, VOCABULARY_SIZE)])
"""Ids that can come next: the end, then every byte; no other special id ever does."""


def likeliest_bytes(logprobs: npt.NDArray[np.floating], count: int) -> list[list[tuple[int | None, float]]]:
    """Return the likeliest that can come at each position, best first; of equals, the end and the smaller byte first.

    Args:
        logprobs: `T V`, natural logarithms.
        count: how many; at most 257, all bytes and the end.

    Returns:
        For each position, bytes and their log-probabilities; None is the end of the text.
    """
    if count == 0:
        return [[] for _ in logprobs]
    among = logprobs[:, _CAN_COME]
    order = np.argsort(-among, axis=1, kind="stable")[:, :count]
    return [
        [(None if at == 0 else at - 1, float(scores[at])) for at in best.tolist()]
        for best, scores in zip(order, among, strict=True)
    ]
