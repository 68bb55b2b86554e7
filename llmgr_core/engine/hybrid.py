"""Hybrid encoding: text tokens and projected ID vectors side by side in one input sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llmgr_core.engine.language_model import LanguageModel
from llmgr_core.engine.token_batches import pad_right

HybridRow = list[int]
"""One sequence: a token id t >= 0, or -1 - i for the i-th vector of the batch."""


def vector_place(index: int) -> int:
    """The entry of a HybridRow that stands for vector ``index``."""
    return -1 - index


@dataclass(frozen=True)
class HybridInput:
    """A padded batch of hybrid sequences.

    Attributes:
        entries: int64 [B, T], HybridRow entries, 0 on padding.
        mask: bool [B, T], True on real positions, which come first in each row.
    """

    entries: torch.Tensor
    mask: torch.Tensor

    @classmethod
    def from_rows(cls, rows: Sequence[HybridRow], device: torch.device | str = "cpu") -> HybridInput:
        entries, mask = pad_right(rows, padding=0)
        return cls(entries.to(device), mask.to(device))

    @property
    def tokens(self) -> int:
        """Positions the model computes, padding included."""
        return self.entries.numel()

    def vectors(self, model: LanguageModel, projection: torch.Tensor, id_vectors: torch.Tensor) -> torch.Tensor:
        """Input vectors [x~_v1 ... ; e_t1 ...] with x~_v = W_p x_v (paper, hybrid encoding layer).

        Args:
            model: gives the token vectors e_t.
            projection: W_p, float [D, d].
            id_vectors: float [n, d], the vectors that the rows' entries refer to.

        Returns:
            float32 [B, T, D].
        """
        is_vector = self.entries < 0
        tokens = model.embed_tokens(self.entries.clamp_min(0)).float()
        projected = id_vectors[-1 - self.entries[is_vector]].to(projection.dtype) @ projection.T
        return tokens.masked_scatter(is_vector[:, :, None], projected.float())
