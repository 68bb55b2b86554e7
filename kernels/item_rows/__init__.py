"""Rows of a table by number, with a gradient that is added up in a fixed order."""

from __future__ import annotations

import torch

from kernels.dispatch import chosen_path
from kernels.item_rows.torch_path import item_rows_torch

__all__ = ["item_rows"]


def item_rows(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Look rows up: ``out[i] = table[ids[i]]``.

    The rows of a batch repeat (a popular item stands in many sessions), so the gradient of a row of the table is a sum.
    The ids are sorted and each run of equal ids is summed in the order of its places: the same bits on every run, no
    atomics, no one-hot matrix. The formula stands in ``kernels.item_rows.reference``.

    Args:
        table: float [V, d].
        ids: int64 [N], each in [0, V), in any order, repeats allowed; checked on a CPU only.

    Returns:
        float [N, d]. Differentiable in ``table``; the gradient is dense, [V, d].

    Raises:
        ValueError: shapes or dtypes do not fit.
        IndexError: an id is not in [0, V), on a CPU.
    """
    if table.ndim != 2 or ids.ndim != 1 or ids.dtype != torch.int64:
        raise ValueError(
            f"table must be [V, d] and ids int64 [N], they are {tuple(table.shape)} and {ids.dtype} {tuple(ids.shape)}"
        )
    if chosen_path("item_rows", ("torch", "triton"), table) == "triton":
        from kernels.item_rows.triton_path import item_rows_forward

        rows: torch.Tensor = item_rows_forward(table, ids)
        return rows
    return item_rows_torch(table, ids)
