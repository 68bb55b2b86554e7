"""Projected rows put among the inputs of a language model by torch's own operations."""

from __future__ import annotations

import torch


def placed(
    projected: torch.Tensor, out: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor, in_place: bool
) -> torch.Tensor:
    """``out`` with ``projected[i]`` at ``[rows[i], positions[i]]``; a row that is negative or outside is left out.

    The host never asks a GPU how many rows there are to place: those left out go to a row behind the last, which is cut off.

    Args:
        projected: [N, D] in the dtype of ``out``.
        out: [B, T, D].
        rows, positions: int64 [N].
        in_place: write into ``out``.
    """
    num_prompts, length, width = out.shape
    inside = (rows >= 0) & (rows < num_prompts) & (positions >= 0) & (positions < length)
    place = torch.where(inside, rows * length + positions, num_prompts * length)
    spare = out.new_zeros(1, width)
    result = torch.cat([out.reshape(-1, width), spare]).index_put((place,), projected)[:-1].view(out.shape)
    return out.copy_(result) if in_place else result
