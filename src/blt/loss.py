"""Next-byte prediction: the targets, one place ahead of the ids, and the loss. Nothing is shifted anywhere else."""

from typing import Literal

import torch
from torch.nn import functional as F

from blt.codec import BOS_ID
from blt.shapes import Float, Int, Tensor

NOT_PREDICTED = -100
"""Target of a position that no loss is taken at (what `torch.nn.functional.cross_entropy` ignores)."""


def next_byte_targets(
    ids: Int[Tensor, "B S"], *, lengths: Int[Tensor, " B"] | None = None
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Return the ids that are read, T = S − 1 of each row, and for each the id that follows it.

    Args:
        ids: consecutive ids, one more than are read.
        lengths: ids of each row; what follows is padding. None means that there is none.

    Returns:
        Ids and targets. A target is `NOT_PREDICTED` where it is a BOS, since nothing tells which document comes next,
        and where it is padding.
    """
    byte_ids, targets = ids[:, :-1].contiguous(), ids[:, 1:].clone()
    targets[targets == BOS_ID] = NOT_PREDICTED
    if lengths is not None:
        place = torch.arange(1, ids.shape[1], device=ids.device)
        targets[place >= lengths[:, None]] = NOT_PREDICTED
    return byte_ids, targets


def next_byte_loss(
    logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"], *, reduction: Literal["sum", "none"] = "sum"
) -> Float[Tensor, "*positions"]:
    """Return the cross-entropy of the targets in nats; a target that is not predicted costs nothing.

    Args:
        logits: of the id that follows each position.
        targets: as `next_byte_targets` gives them.
        reduction: `sum` over all positions, or `none`: each position's, `B T`.
    """
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NOT_PREDICTED, reduction=reduction)
    return nats.view(targets.shape) if reduction == "none" else nats
