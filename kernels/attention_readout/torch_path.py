"""SR-GNN's attention readout over all sessions at once."""

from __future__ import annotations

import torch

from kernels.attention_readout.weights import ReadoutWeights
from kernels.segments import segment_expand, segment_sum
from kernels.session_graph import SessionGraph


def attention_readout_torch(nodes: torch.Tensor, graph: SessionGraph, weights: ReadoutWeights) -> torch.Tensor:
    """Same meaning as ``attention_readout_reference``, without a loop over sessions."""
    if graph.num_nodes == 0:
        return nodes.new_zeros(graph.num_sessions, weights.dimension)
    filled = (graph.last_node >= 0).to(nodes)[:, None]
    last = nodes.index_select(0, graph.last_node.clamp(min=0)) * filled
    query = torch.addmm(weights.bias, last, weights.last.T)
    hidden = torch.sigmoid(nodes @ weights.node.T + segment_expand(query, graph.node_session, graph.node_offsets))
    alpha = (hidden @ weights.score) * graph.node_clicks.to(nodes)
    attended = segment_sum(nodes * alpha[:, None], graph.node_session, graph.node_offsets)
    return torch.addmm(weights.output_bias, torch.cat([attended, last], dim=1), weights.output.T) * filled
