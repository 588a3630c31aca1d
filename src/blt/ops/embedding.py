"""Sums of table rows, and their gradient."""

from typing import Any

import torch
from torch.nn import functional as F

from blt.ops.native.operators import call, define, differentiate, serves
from blt.ops.registry import operator
from blt.shapes import Float, Int, Tensor


def _backward(given: Tensor, indices: Tensor, num_rows: int) -> Tensor:
    given, indices, dim = given.float().contiguous(), indices.contiguous(), given.shape[1]
    gradient = given.new_zeros(num_rows, dim)
    call("scatter_rows", given, indices, *indices.shape, num_rows, dim, gradient)
    return gradient


_BAG = define(
    "embedding_bag(Tensor indices, Tensor table) -> Tensor",
    lambda indices, table: F.embedding_bag(indices, table, mode="sum"),
    fake=lambda indices, table: table.new_empty(indices.shape[0], table.shape[1]),
)
_BAG_BACKWARD = define(
    "embedding_bag_backward(Tensor given, Tensor indices, SymInt num_rows) -> Tensor",
    _backward,
    fake=lambda given, _, num_rows: given.new_empty(num_rows, given.shape[1], dtype=torch.float32),
)


def _setup(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
    indices, table = inputs
    ctx.num_rows = table.shape[0]
    ctx.save_for_backward(indices)


def _gradients(ctx: Any, given: Tensor) -> tuple[None, Tensor]:
    return None, _BAG_BACKWARD(given, *ctx.saved_tensors, ctx.num_rows)


differentiate(_BAG, _gradients, setup=_setup)


def _serves(indices: Tensor, table: Tensor, *, sparse: bool = False) -> bool:  # noqa: ARG001
    return not sparse and table.dtype == torch.float32 and serves(table, widths=(table.shape[1],))


def _native(indices: Tensor, table: Tensor, *, sparse: bool = False) -> Tensor:
    assert not sparse
    return _BAG(indices, table)


@operator(native=_native, serves=_serves)
def embedding_bag(
    indices: Int[Tensor, "Z N"], table: Float[Tensor, "R D"], *, sparse: bool = False
) -> Float[Tensor, "Z D"]:
    """Sum table rows per position; with `sparse`, the table's gradient holds only the rows that were read."""
    return F.embedding_bag(indices, table, mode="sum", sparse=sparse)
