"""SASRec (Kang and McAuley 2018): causal self-attention over the clicks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import kernels
from llmgr_core.encoders.click_attention import ClickAttention, ClickPositions
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.encoders.ragged_rows import PaddedSessions, last_rows, zero_where_empty
from llmgr_core.graphs import SessionBatch
from llmgr_core.settings.encoder import EncoderSettings


class SASRec(SessionEncoder):
    """z_s = the last row after ``attention_layers`` blocks over sqrt(d) (x_i + p_i), normalised (eq. 1-7).

    Block, with g(x) -> x + Dropout(g(LayerNorm(x))) around either part:
    S = softmax(Q K^T / sqrt(d / heads)) V             causal; dropout on the weights, as in the authors' code
    F = W_2 Dropout(ReLU(W_1 S + b_1)) + b_2

    The factor sqrt(d) and the norm behind the last block are the authors' code's too.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        d = settings.dimension
        self.positions = ClickPositions(settings.max_clicks, d) if settings.positions else None
        self.blocks = nn.ModuleList(SASRecBlock(settings) for _ in range(settings.attention_layers))
        self.norm = nn.LayerNorm(d)

    def forward(self, node_vectors: Tensor, batch: SessionBatch) -> Tensor:
        if len(node_vectors) == 0:
            return node_vectors.new_zeros(batch.num_sessions, self.settings.dimension)
        rows = kernels.item_rows(node_vectors, batch.click_nodes)
        if self.positions is not None:
            rows = rows + self.positions(batch)
        rows = self.dropout(math.sqrt(self.settings.dimension) * rows)
        sessions = PaddedSessions(batch, self.settings.max_clicks)
        for number, block in enumerate(self.blocks, start=1):
            rows = block(rows, batch, sessions, last_only=number == len(self.blocks))
        return zero_where_empty(self.norm(rows), batch)


class SASRecBlock(nn.Module):
    """One block, pre-norm."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        d = settings.dimension
        self.attention_norm = nn.LayerNorm(d)
        self.attention = ClickAttention(d, settings.attention_heads, settings.dropout)
        self.feed_forward_norm = nn.LayerNorm(d)
        self.inner = nn.Linear(d, d)
        self.outer = nn.Linear(d, d)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, rows: Tensor, batch: SessionBatch, sessions: PaddedSessions, last_only: bool) -> Tensor:
        """[T, d] -> [T, d]; with ``last_only`` the last row of each session, [B, d]."""
        normed = self.attention_norm(rows)
        if last_only:
            rows = last_rows(rows, batch)
        queries = last_rows(normed, batch) if last_only else normed
        rows = rows + self.dropout(self.attention(queries, normed, sessions, last_only))
        hidden = self.dropout(torch.relu(self.inner(self.feed_forward_norm(rows))))
        fed: Tensor = rows + self.dropout(self.outer(hidden))
        return fed
