"""FPMC (Rendle et al. 2010) without a user: a factorised first-order Markov chain."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import kernels
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.encoders.ragged_rows import zero_where_empty
from llmgr_core.graphs import SessionBatch
from llmgr_core.settings.encoder import EncoderSettings


class FPMC(SessionEncoder):
    """z_s = v_l of the last click l, so that <z_s, x_i> = <v_l^{L,I}, v_i^{I,L}>, the factorised transition from l to i.

    The paper scores <v_u^{U,I}, v_i^{I,U}> + mean over the last basket of <v_l^{L,I}, v_i^{I,L}>. Sessions have no user, and a
    click is a basket of one item: the first term falls away (as where SR-GNN compares itself with FPMC) and the mean has one
    member. v^{I,L} is the table that z_s is compared with, v^{L,I} a table of the encoder's own, which the node vectors do not
    enter. Trained by the project's cross-entropy over the catalogue in place of the paper's pairwise S-BPR.

    Args:
        settings: d and dropout.
        num_items: V, items that have a v_l.
    """

    def __init__(self, settings: EncoderSettings, num_items: int) -> None:
        super().__init__(settings)
        bound = 1.0 / math.sqrt(settings.dimension)
        self.last_item = nn.Parameter(torch.empty(num_items, settings.dimension).uniform_(-bound, bound))

    def forward(self, node_vectors: Tensor, batch: SessionBatch) -> Tensor:
        last = batch.graph.last_node
        if batch.graph.num_nodes == 0:
            return node_vectors.new_zeros(len(last), self.settings.dimension)
        vectors: Tensor = self.dropout(kernels.item_rows(self.last_item, batch.node_items[last.clamp(min=0)]))
        return zero_where_empty(vectors, batch)
