"""SR-GNN's attention readout as its formula reads."""

from __future__ import annotations

import torch

from kernels.attention_readout.weights import ReadoutWeights
from kernels.session_graph import SessionGraph


def attention_readout_reference(nodes: torch.Tensor, graph: SessionGraph, weights: ReadoutWeights) -> torch.Tensor:
    """One session at a time (SR-GNN, Wu et al. 2019, eq. 6-7).

    alpha_i = q . sigmoid(W_1 x_last + W_2 x_i + c)
    s       = sum over clicks i of alpha_i x_i        a node counts as often as it was clicked
    z       = W_3 [s ; x_last] + b                    zeros for an empty session
    """
    sessions = []
    for session in range(graph.num_sessions):
        begin, end = graph.node_offsets[session : session + 2].tolist()
        if begin == end:
            sessions.append(nodes.new_zeros(weights.dimension))
            continue
        x = nodes[begin:end]
        last = nodes[graph.last_node[session]]
        alpha = torch.sigmoid(weights.last @ last + x @ weights.node.T + weights.bias) @ weights.score
        attended = ((graph.node_clicks[begin:end].to(x) * alpha)[:, None] * x).sum(dim=0)
        sessions.append(weights.output @ torch.cat([attended, last]) + weights.output_bias)
    return torch.stack(sessions) if sessions else nodes.new_zeros(0, weights.dimension)
