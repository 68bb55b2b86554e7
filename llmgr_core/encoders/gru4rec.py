"""GRU4Rec (Hidasi et al. 2016; Hidasi and Karatzoglou 2018): a GRU over the clicks."""

from __future__ import annotations

from torch import Tensor

import kernels
from llmgr_core.encoders.click_gru import ClickGRU
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.graphs import SessionBatch
from llmgr_core.settings.encoder import EncoderSettings


class GRU4Rec(SessionEncoder):
    """z_s = h_n, the state after the last click, compared with the vectors that the GRU reads (constrained embeddings).

    Dropout is on the clicks and on the last state, as in the authors' code; one layer, which the paper found best.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        self.recurrence = ClickGRU(settings.dimension, settings.max_clicks)

    def forward(self, node_vectors: Tensor, batch: SessionBatch) -> Tensor:
        if len(node_vectors) == 0:
            return node_vectors.new_zeros(batch.num_sessions, self.settings.dimension)
        rows = self.dropout(kernels.item_rows(node_vectors, batch.click_nodes))
        _, last = self.recurrence(rows, batch)
        dropped: Tensor = self.dropout(last)
        return dropped
