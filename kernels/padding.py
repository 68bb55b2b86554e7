"""Ragged rows in padded blocks, and back: for paths whose products want blocks."""

from __future__ import annotations

from typing import Any

import torch


def length_classes(lengths: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
    """Sessions of like length: 1, 2, 3-4, 5-8, ..., so that less than half of a block as wide as its longest is padding.

    Args:
        lengths: int64 [B]; sessions of length 0 are in no class.

    Returns:
        The sessions of each class that has some, int64 ascending, and the longest length among them. Waits for the device.
    """
    classes, size, longest = [], 1, int(lengths.max())
    while size < 2 * longest:
        members = torch.nonzero((lengths > size // 2) & (lengths <= size)).squeeze(1)
        size *= 2
        if len(members):
            classes.append((members, int(lengths[members].max())))
    return classes


def rearranged(rows: torch.Tensor, places: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """result[i] = rows[places[i]], zeros where places[i] is -1.

    Args:
        rows: float [n, d]; none is taken twice.
        places: int64 [m].
        inverse: int64 [n], the i that took each row, -1 for one that was left out. The gradient needs no sums with it.

    Returns:
        float [m, d].
    """
    return _Rearranged.apply(rows, places, inverse)  # type: ignore[no-any-return, no-untyped-call]


class _Rearranged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, places: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(places, inverse)
        if len(rows) == 0:
            return rows.new_zeros(len(places), rows.shape[1])
        return rows.index_select(0, places.clamp(min=0)).masked_fill_((places < 0)[:, None], 0.0)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        places, inverse = ctx.saved_tensors
        return rearranged(grad.contiguous(), inverse, places), None, None
