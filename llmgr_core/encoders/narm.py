"""NARM (Li et al. 2017): a global and a local encoder over one GRU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import kernels
from kernels.segments import segment_expand, segment_sum
from llmgr_core.encoders.click_gru import ClickGRU
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.encoders.ragged_rows import session_of_click
from llmgr_core.graphs import SessionBatch
from llmgr_core.settings.encoder import EncoderSettings


class NARM(SessionEncoder):
    """z_s = B c_t, so that <z_s, x_v> is the paper's bilinear x_v^T B c_t (eq. 3-9).

    h_j = GRU(h_(j-1), x_j)
    alpha_tj = v^T sigmoid(A_1 h_t + A_2 h_j)
    c_t = [h_t ; sum_j alpha_tj h_j]

    Dropout is on the clicks and on c_t. Weights of the attention are not normalised, as in the paper.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        d = settings.dimension
        self.recurrence = ClickGRU(d, settings.max_clicks)
        self.of_last = nn.Linear(d, d, bias=False)
        self.of_click = nn.Linear(d, d, bias=False)
        self.attention = nn.Linear(d, 1, bias=False)
        self.decoder = nn.Linear(2 * d, d, bias=False)

    def forward(self, node_vectors: Tensor, batch: SessionBatch) -> Tensor:
        if len(node_vectors) == 0:
            return node_vectors.new_zeros(batch.num_sessions, self.settings.dimension)
        states, last = self.recurrence(self.dropout(kernels.item_rows(node_vectors, batch.click_nodes)), batch)
        offsets, session = batch.click_offsets, session_of_click(batch)
        context = segment_expand(self.of_last(last), session, offsets)
        share = self.attention(torch.sigmoid(context + self.of_click(states)))
        # The state of a click that was left out is zero, and so is its part of the sum.
        local = segment_sum(share * states, session, offsets)
        vectors: Tensor = self.decoder(self.dropout(torch.cat([last, local], dim=1)))
        return vectors
