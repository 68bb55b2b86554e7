"""From the hidden states of a padded batch to one vector a row."""

from __future__ import annotations

from typing import Literal

import torch

Pooling = Literal["mean", "last"]


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Pool hidden states over real tokens only.

    Args:
        hidden: [B, T, D]; what stands on padding is ignored, NaN included.
        mask: bool [B, T], True on real tokens, which come first in each row.
        pooling: "mean" over real tokens, or the "last" real token.

    Returns:
        [B, D] of the same dtype.
    """
    if pooling == "last":
        last = mask.sum(dim=1) - 1
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    kept = hidden.masked_fill(~mask[:, :, None], 0)
    return kept.sum(dim=1) / mask.sum(dim=1, keepdim=True).to(hidden.dtype)
