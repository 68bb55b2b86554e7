"""STAMP (Liu et al. 2018): attention around the last click and the session's mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import kernels
from kernels.segments import segment_expand, segment_sum
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.encoders.ragged_rows import last_rows, session_of_click, zero_where_empty
from llmgr_core.graphs import SessionBatch
from llmgr_core.settings.encoder import EncoderSettings


class STAMP(SessionEncoder):
    """z_s = h_s * h_t, so that <z_s, x_v> is the paper's trilinear <h_s, h_t, x_v> (eq. 5-12).

    m_t = x_n,  m_s = mean of x_i
    a_i = w_0^T sigmoid(W_1 x_i + W_2 m_t + W_3 m_s + b_a)
    m_a = sum_i a_i x_i
    h_s = tanh(W_s m_a + b_s),  h_t = tanh(W_t m_t + b_t)

    The sigmoid around the trilinear product, which keeps logits within [0, 1], is left out.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        d = settings.dimension
        self.of_click = nn.Linear(d, d, bias=False)
        self.of_last = nn.Linear(d, d, bias=False)
        self.of_mean = nn.Linear(d, d)
        self.priority = nn.Linear(d, 1, bias=False)
        self.memory = nn.Linear(d, d)
        self.short_term = nn.Linear(d, d)

    def forward(self, node_vectors: Tensor, batch: SessionBatch) -> Tensor:
        if len(node_vectors) == 0:
            return node_vectors.new_zeros(batch.num_sessions, self.settings.dimension)
        rows = self.dropout(kernels.item_rows(node_vectors, batch.click_nodes))
        offsets, session = batch.click_offsets, session_of_click(batch)
        last = last_rows(rows, batch)
        mean = segment_sum(rows, session, offsets) / offsets.diff().clamp(min=1)[:, None]
        context = segment_expand(self.of_last(last) + self.of_mean(mean), session, offsets)
        priority = self.priority(torch.sigmoid(self.of_click(rows) + context))
        memory = torch.tanh(self.memory(segment_sum(priority * rows, session, offsets)))
        return zero_where_empty(memory * torch.tanh(self.short_term(last)), batch)
