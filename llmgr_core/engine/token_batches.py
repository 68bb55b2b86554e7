"""Batches of texts of like length under a token budget."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def token_budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group texts so that padding wastes little: sorted by length, longest first, each batch within the budget.

    Args:
        lengths: tokens of each text.
        budget: padded tokens of one batch (longest text times texts); a single longer text is a batch of its own.

    Returns:
        Positions of the texts, batch after batch; every position once.
    """
    batches: list[list[int]] = []
    widest = 0
    # Longest first: a batch that does not fit into memory fails at once, not after an hour.
    for position in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if batches and (len(batches[-1]) + 1) * widest <= budget:
            batches[-1].append(position)
        else:
            batches.append([position])
            widest = max(lengths[position], 1)
    return batches


def pad_right(rows: Sequence[Sequence[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack token rows of unequal length.

    Right padding keeps the position of every real token what it is alone, in encoders and causal models alike.

    Returns:
        ids int64 [B, T] and mask bool [B, T], True on real tokens.
    """
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    ids = torch.full((len(rows), width), padding, dtype=torch.int64)
    mask = torch.arange(width)[None, :] < lengths[:, None]
    ids[mask] = torch.tensor([token for row in rows for token in row], dtype=torch.int64)
    return ids, mask
