"""Ragged lists as (session, item) pairs, each pair one sortable key."""

from __future__ import annotations

import torch

from kernels.score_topk.ragged import RaggedItems, RaggedScores


def sessions_of(offsets: torch.Tensor, total: int) -> torch.Tensor:
    """int64 [M], the session of each entry of a ragged list."""
    return torch.repeat_interleave(torch.arange(len(offsets) - 1, device=offsets.device), offsets.diff(), output_size=total)


def pair_keys(ragged: RaggedItems | RaggedScores, num_items: int) -> torch.Tensor:
    """int64 [M], session * V + item of each entry."""
    return sessions_of(ragged.offsets, len(ragged.indices)) * num_items + ragged.indices


def contained(keys: torch.Tensor, sorted_keys: torch.Tensor) -> torch.Tensor:
    """bool [M], whether each key is among the sorted ones."""
    if len(sorted_keys) == 0:
        return torch.zeros_like(keys, dtype=torch.bool)
    place = torch.searchsorted(sorted_keys, keys).clamp_(max=len(sorted_keys) - 1)
    return sorted_keys[place] == keys


class SparseScores:
    """Additive scores by pair key, those of one pair added up in float64.

    Args:
        additive: the lists.
        num_items: V.
    """

    def __init__(self, additive: RaggedScores, num_items: int) -> None:
        self.keys, group = torch.unique(pair_keys(additive, num_items), return_inverse=True)
        values = additive.values.to(torch.float64)
        self.values = torch.zeros(len(self.keys), dtype=torch.float64, device=values.device).index_add_(0, group, values)

    def at(self, keys: torch.Tensor) -> torch.Tensor:
        """float64 [M], the score of each pair; 0 where there is none."""
        if len(self.keys) == 0:
            return torch.zeros(len(keys), dtype=torch.float64, device=keys.device)
        place = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return torch.where(self.keys[place] == keys, self.values[place], 0.0)
