"""Causal self-attention over the clicks of each session."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

import kernels
from llmgr_core.encoders.ragged_rows import PaddedSessions, clicks_before_last
from llmgr_core.graphs import SessionBatch


class ClickAttention(nn.Module):
    """softmax(Q K^T / sqrt(d / heads)) V, where a click sees itself and the clicks before it.

    Args:
        dimension: d.
        heads: divides d.
        dropout: share of attention weights dropped while training.
    """

    def __init__(self, dimension: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Linear(dimension, dimension, bias=False)
        self.key = nn.Linear(dimension, dimension, bias=False)
        self.value = nn.Linear(dimension, dimension, bias=False)
        self.heads = heads
        self.dropout = dropout

    def forward(self, queries: Tensor, rows: Tensor, sessions: PaddedSessions, last_only: bool) -> Tensor:
        """Attention of all clicks, or of the last of each session alone.

        Args:
            queries: where queries come from, float [T, d]; [B, d] with ``last_only``.
            rows: where keys and values come from, float [T, d].
            sessions: where the clicks stand.
            last_only: one query a session.

        Returns:
            float, of the shape of ``queries``; zeros for clicks and sessions that stand in no block.
        """
        d = queries.shape[1]
        projected = functional.linear(rows, torch.cat([self.key.weight, self.value.weight]))
        query_rows = self.query(queries)
        if last_only:
            of_classes = [query_rows.index_select(0, members)[:, None] for members in sessions.sessions]
            blocks = sessions.padded(projected)
        else:
            blocks = sessions.padded(torch.cat([query_rows, projected], dim=1))
            of_classes = [block[:, :, :d] for block in blocks]
            blocks = [block[:, :, d:] for block in blocks]
        attended = [
            self._attend(query, block, present)
            for query, block, present in zip(of_classes, blocks, sessions.present, strict=True)
        ]
        return sessions.by_session([block[:, 0] for block in attended]) if last_only else sessions.flat(attended)

    def _attend(self, query: Tensor, key_value: Tensor, present: Tensor) -> Tensor:
        """[n, m, d] from queries of the last m columns [n, m, d] and keys and values [n, w, 2d]."""
        n, m, d = query.shape
        w = key_value.shape[1]
        query = query.view(n, m, self.heads, -1).transpose(1, 2)
        key, value = key_value.view(n, w, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        own = torch.ones(w, w, dtype=torch.bool, device=present.device)
        # A column without a click sees itself: a softmax over nothing would be no number.
        visible = (present[:, None, None, :] & own.tril()[w - m :]) | (own.tril() & own.triu())[w - m :]
        dropout = self.dropout if self.training else 0.0
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=dropout)
        return attended.transpose(1, 2).reshape(n, m, d)


class ClickPositions(nn.Module):
    """A learned vector for how many clicks before the last a click stands; the oldest known one beyond ``max_clicks``.

    Counting from the end is what padding on the left does in the papers.
    """

    def __init__(self, max_clicks: int, dimension: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.02 * torch.randn(max_clicks, dimension))

    def forward(self, batch: SessionBatch) -> Tensor:
        """float [T, d]."""
        distance = clicks_before_last(batch).clamp(max=len(self.vectors) - 1)
        return kernels.item_rows(self.vectors, distance)
