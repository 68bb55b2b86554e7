"""Looking rows up, and what flows back, as the formulas read."""

from __future__ import annotations

import torch


def item_rows_reference(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """out_i = table_(ids_i)."""
    return torch.stack([table[number] for number in ids.tolist()]) if len(ids) else table.new_zeros(0, table.shape[1])


def item_rows_gradient_reference(grad: torch.Tensor, ids: torch.Tensor, num_rows: int) -> torch.Tensor:
    """d table_v = sum over i with ids_i = v of grad_i, in ascending i: float [V, d] from float [N, d]."""
    gradient = grad.new_zeros(num_rows, grad.shape[1])
    for place, number in enumerate(ids.tolist()):
        gradient[number] += grad[place]
    return gradient
