"""NISER and NISER+ (Gupta et al. 2019): SR-GNN over vectors of unit length."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import kernels
from kernels import ReadoutWeights, SessionGraph
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.encoders.graph_layer import GraphLayerWeights
from llmgr_core.encoders.ragged_rows import clicks_before_last
from llmgr_core.encoders.weights import KernelWeights
from llmgr_core.graphs import SessionBatch
from llmgr_core.settings.encoder import EncoderSettings

SMALLEST_NORM = 1e-12


class NISER(SessionEncoder):
    """z_s = r / |r|, where r is SR-GNN's readout over the clicks, each h_i + p_i; h comes from gated layers over x_v / |x_v|.

    Popular items get long vectors, and long vectors get high scores; NISER lets directions alone count, here and (with
    ``settings.logits = "cosine"``, sigma = ``settings.scale``) where z_s meets the items. With ``settings.positions`` (NISER+)
    each click carries a learned vector. The paper counts positions from the session's start; here, as everywhere in this
    project, they are clicks before the last, which a session cut to its last clicks does not shift.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        self.graph_layer = GraphLayerWeights(settings.dimension)
        self.readout = KernelWeights(ReadoutWeights.initial(settings.dimension))
        d = settings.dimension
        self.positions = nn.Parameter(0.02 * torch.randn(settings.max_clicks, d)) if settings.positions else None

    def forward(self, node_vectors: Tensor, batch: SessionBatch) -> Tensor:
        settings = self.settings
        unit = nn.functional.normalize(self.dropout(node_vectors), dim=1, eps=SMALLEST_NORM)
        nodes = kernels.gated_graph_layers(unit, batch.graph, self.graph_layer(), settings.layers, settings.edges)
        if self.positions is None:
            read = kernels.attention_readout(nodes, batch.graph, self.readout())
        else:
            distance = clicks_before_last(batch).clamp(max=settings.max_clicks - 1)
            clicks = kernels.item_rows(nodes, batch.click_nodes) + kernels.item_rows(self.positions, distance)
            read = kernels.attention_readout(clicks, _one_node_a_click(batch), self.readout())
        return nn.functional.normalize(read, dim=1, eps=SMALLEST_NORM)


def _one_node_a_click(batch: SessionBatch) -> SessionGraph:
    """The sessions with every click a node of its own and no edges: what the readout takes once positions differ."""
    offsets = batch.click_offsets
    no_edges = offsets.new_zeros(0)
    return SessionGraph(
        node_offsets=offsets,
        edge_source=no_edges,
        edge_target=no_edges,
        edge_weight=batch.graph.edge_weight.new_zeros(0),
        node_clicks=batch.graph.node_clicks.new_ones(len(batch.click_nodes)),
        last_node=torch.where(offsets.diff() > 0, offsets[1:] - 1, -1),
    )
