"""Sums of sparse gradients over ranks."""

import torch
import torch.distributed as dist
from torch.nn import functional as F

from blt.shapes import Tensor


def sum_rows(gradient: Tensor, *, group: dist.ProcessGroup | None = None) -> Tensor:
    """Add up gradients that hold other rows on each rank: all get all of them, once per row.

    Args:
        gradient: sparse and coalesced, with whole rows: R × D.
        group: the ranks; None: all.
    """
    rows, values = gradient.indices()[0], gradient.values()  # N, N D
    counts = rows.new_zeros(dist.get_world_size(group))
    counts[dist.get_rank(group)] = len(rows)
    dist.all_reduce(counts, group=group)
    longest = int(counts.max())
    all_rows = [rows.new_empty(longest) for _ in counts]
    all_values = [values.new_empty(longest, values.shape[1]) for _ in counts]
    dist.all_gather(all_rows, F.pad(rows, (0, longest - len(rows))), group=group)
    dist.all_gather(all_values, F.pad(values, (0, 0, 0, longest - len(rows))), group=group)
    kept_rows = torch.cat([some[:count] for some, count in zip(all_rows, counts.tolist(), strict=True)])
    kept_values = torch.cat([some[:count] for some, count in zip(all_values, counts.tolist(), strict=True)])
    return torch.sparse_coo_tensor(kept_rows[None], kept_values, gradient.shape, check_invariants=True).coalesce()
