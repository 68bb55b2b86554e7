"""Looking rows up on a CPU, with a gradient that is added up in the order of the places."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


def item_rows_torch(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Same meaning as ``item_rows_reference``."""
    return _ItemRows.apply(table, ids)  # type: ignore[no-any-return, no-untyped-call]


class _ItemRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(ids)
        ctx.num_rows = len(table)
        return table.index_select(0, ids)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (ids,) = ctx.saved_tensors
        return _sums(grad.contiguous(), ids, ctx.num_rows), None


def _sums(grad: torch.Tensor, ids: torch.Tensor, num_rows: int) -> torch.Tensor:
    """float [V, d]; both ways add in ascending places, so the bits do not depend on which one is taken.

    Row v is a bag of the places at which v stands, and the embedding-bag kernel walks all V bags. Where the places are few
    beside the rows, adding one after the other costs a CPU less (0.2 against 0.4 ms for 5,000 places in 12,101 rows, but 1.1
    against 0.9 for 40,000). It would use atomics on a GPU, and round each sum in 16 bits.
    """
    if len(ids) == 0:
        return grad.new_zeros(num_rows, grad.shape[1])
    if 2 * len(ids) < num_rows and not grad.is_cuda and grad.dtype.itemsize >= 4:
        return grad.new_zeros(num_rows, grad.shape[1]).index_add_(0, ids, grad)
    # Stable, so that equal ids keep the order of their places.
    places = torch.sort(ids, stable=True).indices
    counts = ids.new_zeros(num_rows + 1).scatter_add_(0, ids + 1, torch.ones_like(ids))
    return functional.embedding_bag(places, grad, torch.cumsum(counts, 0), mode="sum", include_last_offset=True)
