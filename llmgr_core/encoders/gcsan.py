"""GC-SAN (Xu et al. 2019): gated graph layers, then self-attention over the clicks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import kernels
from kernels import SessionAttentionWeights
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.encoders.graph_layer import GraphLayerWeights
from llmgr_core.encoders.ragged_rows import clicks_before_last
from llmgr_core.encoders.weights import KernelWeights
from llmgr_core.graphs import SessionBatch
from llmgr_core.settings.encoder import EncoderSettings

FEED_FORWARD_FACTOR = 4


class GCSAN(SessionEncoder):
    """z_s = w * attended_last + (1 - w) * x_last over the clicks after L gated layers.

    The paper's attention does not know the order of the clicks, which a chain of distinct items needs; with
    ``settings.positions`` each click carries a learned vector for its distance from the last one.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        d = settings.dimension
        self.graph_layer = GraphLayerWeights(d)
        initial = [SessionAttentionWeights.initial(d, FEED_FORWARD_FACTOR * d) for _ in range(settings.attention_layers)]
        # A normalised row is sqrt(d) long, an ID vector about 1/2; unless shortened it would drown the last click in z_s.
        with torch.no_grad():
            initial[-1].feed_forward_norm[0].div_(math.sqrt(d))
        self.blocks = nn.ModuleList(KernelWeights(weights) for weights in initial)
        self.positions = nn.Parameter(0.02 * torch.randn(settings.max_clicks, d)) if settings.positions else None

    def forward(self, node_vectors: Tensor, batch: SessionBatch) -> Tensor:
        settings = self.settings
        nodes = kernels.gated_graph_layers(
            self.dropout(node_vectors), batch.graph, self.graph_layer(), settings.layers, settings.edges
        )
        rows = kernels.item_rows(nodes, batch.click_nodes)
        if self.positions is not None:
            distance = clicks_before_last(batch).clamp(max=settings.max_clicks - 1)
            rows = rows + kernels.item_rows(self.positions, distance)
        rows = self.dropout(rows)
        for number, block in enumerate(self.blocks, start=1):
            last_only = number == len(self.blocks)
            rows = kernels.session_attention(rows, batch.click_offsets, block(), settings.attention_heads, last_only=last_only)
        has_clicks = batch.graph.last_node >= 0
        last = kernels.item_rows(nodes, batch.graph.last_node.clamp(min=0)) if len(nodes) else rows
        mixed = settings.attention_share * rows + (1.0 - settings.attention_share) * last
        return torch.where(has_clicks[:, None], mixed, torch.zeros_like(mixed))
