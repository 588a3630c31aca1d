"""Exchange of columns: each rank holds some columns of all positions, and wants all columns of its own positions."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from blt.shapes import Tensor


def join_columns(columns: Tensor, *, widths: Sequence[int], group: dist.ProcessGroup) -> Tensor:
    """Return all columns of this rank's positions; differentiable.

    Args:
        columns: of all ranks' positions, rank after rank, as many of each: W·Z × this rank's width.
        widths: columns that each rank holds, in the order of the columns; D in all.
        group: the W ranks.

    Returns:
        Z × D.
    """
    joined: Tensor = _Join.apply(columns, list(widths), group)  # type: ignore[no-untyped-call]
    return joined


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, columns: Tensor, widths: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.widths, ctx.group = widths, group
        positions = len(columns) // len(widths)
        received = [columns.new_empty(positions, width) for width in widths]
        _exchange(received, list(columns.chunk(len(widths))), group)
        return torch.cat(received, dim=1)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None, None]:
        width = ctx.widths[dist.get_rank(ctx.group)]
        received = given.new_empty(len(ctx.widths) * len(given), width)
        _exchange(list(received.chunk(len(ctx.widths))), list(torch.split(given, ctx.widths, dim=1)), ctx.group)
        return received, None, None


def _exchange(received: list[Tensor], sent: list[Tensor], group: dist.ProcessGroup) -> None:
    """Send a part to each rank and receive one from each; all parts lie in one message, since gloo has no other."""
    of_received, of_sent = ([part.numel() for part in parts] for parts in (received, sent))
    flat = sent[0].new_empty(sum(of_received))
    dist.all_to_all_single(flat, torch.cat([part.flatten() for part in sent]), of_received, of_sent, group=group)
    for part, values in zip(received, torch.split(flat, of_received), strict=True):
        part.copy_(values.view_as(part))
