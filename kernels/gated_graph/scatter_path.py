"""The gated layer with torch-scatter's segment sums: an independent witness of the torch path."""

from __future__ import annotations

import torch
import torch_scatter

from kernels.gated_graph.weights import GatedGraphWeights
from kernels.session_graph import SessionGraph


def gated_graph_layers_scatter(
    nodes: torch.Tensor, graph: SessionGraph, weights: GatedGraphWeights, num_layers: int, edge_weights: str = "binary"
) -> torch.Tensor:
    """Same meaning as ``gated_graph_layers_reference``; edges are summed by ``torch_scatter.segment_csr``."""
    order = graph.target_order
    weight = graph.edge_weight.to(nodes) if edge_weights == "multiplicity" else None
    arriving = None if weight is None else weight[order]
    senders = graph.edge_source[order]
    d = weights.dimension
    for _ in range(num_layers):
        a_in = _mean(nodes @ weights.edge_in.T + weights.edge_in_bias, senders, graph.target_offsets, arriving)
        a_out = _mean(nodes @ weights.edge_out.T + weights.edge_out_bias, graph.edge_target, graph.source_offsets, weight)
        from_edges = torch.addmm(weights.gate_input_bias, torch.cat([a_in, a_out], dim=1), weights.gate_input.T)
        from_self = torch.addmm(weights.gate_hidden_bias, nodes, weights.gate_hidden.T)
        reset, update = torch.sigmoid(from_edges[:, : 2 * d] + from_self[:, : 2 * d]).chunk(2, dim=1)
        candidate = torch.tanh(from_edges[:, 2 * d :] + reset * from_self[:, 2 * d :])
        nodes = torch.lerp(candidate, nodes, update)
    return nodes


def _mean(messages: torch.Tensor, neighbour: torch.Tensor, offsets: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    gathered = messages[neighbour]
    if weight is not None:
        gathered = gathered * weight[:, None]
    total: torch.Tensor = torch_scatter.segment_csr(gathered, offsets, reduce="sum")
    degree = offsets.diff().to(total) if weight is None else torch_scatter.segment_csr(weight, offsets, reduce="sum")
    return total / torch.where(degree > 0, degree, 1.0)[:, None]
