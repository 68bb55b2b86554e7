"""SR-GNN (Wu et al. 2019): gated graph layers, then an attention readout around the last click."""

from __future__ import annotations

from torch import Tensor

import kernels
from kernels import ReadoutWeights
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.encoders.graph_layer import GraphLayerWeights
from llmgr_core.encoders.weights import KernelWeights
from llmgr_core.graphs import SessionBatch
from llmgr_core.settings.encoder import EncoderSettings


class SRGNN(SessionEncoder):
    """z_s = W_3 [sum_i alpha_i x_i ; x_last] + b over the nodes after L gated layers."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        self.graph_layer = GraphLayerWeights(settings.dimension)
        self.readout = KernelWeights(ReadoutWeights.initial(settings.dimension))

    def forward(self, node_vectors: Tensor, batch: SessionBatch) -> Tensor:
        nodes = kernels.gated_graph_layers(
            self.dropout(node_vectors), batch.graph, self.graph_layer(), self.settings.layers, self.settings.edges
        )
        return kernels.attention_readout(nodes, batch.graph, self.readout())
