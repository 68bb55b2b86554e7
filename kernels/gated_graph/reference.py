"""The gated session-graph layer as its formula reads."""

from __future__ import annotations

import torch

from kernels.gated_graph.weights import GatedGraphWeights
from kernels.session_graph import SessionGraph


def gated_graph_layers_reference(
    nodes: torch.Tensor, graph: SessionGraph, weights: GatedGraphWeights, num_layers: int, edge_weights: str = "binary"
) -> torch.Tensor:
    """L gated layers, one line per line of the formula (SR-GNN, Wu et al. 2019, eq. 1-5).

    With w_uv the weight of edge (u, v) (1, or its multiplicity) and m_v = sum_u w_uv, m'_v = sum_u w_vu:

        a_in_v  = sum_u w_uv (W_in x_u + b_in) / m_v      0 where no edge arrives
        a_out_v = sum_u w_vu (W_out x_u + b_out) / m'_v   0 where no edge leaves
        r, z    = sigmoid(W_ih [a_in ; a_out] + b_ih + W_hh x + b_hh)
        n       = tanh(W_ih [a_in ; a_out] + b_ih + r * (W_hh x + b_hh))
        x'      = n + z * (x - n)
    """
    weight = graph.edge_weight.to(nodes) if edge_weights == "multiplicity" else torch.ones_like(graph.edge_weight).to(nodes)
    for _ in range(num_layers):
        a_in = _mean(nodes @ weights.edge_in.T + weights.edge_in_bias, graph.edge_source, graph.edge_target, weight)
        a_out = _mean(nodes @ weights.edge_out.T + weights.edge_out_bias, graph.edge_target, graph.edge_source, weight)
        gates_in = torch.cat([a_in, a_out], dim=1) @ weights.gate_input.T + weights.gate_input_bias
        gates_hidden = nodes @ weights.gate_hidden.T + weights.gate_hidden_bias
        r_in, z_in, n_in = gates_in.chunk(3, dim=1)
        r_hidden, z_hidden, n_hidden = gates_hidden.chunk(3, dim=1)
        r = torch.sigmoid(r_in + r_hidden)
        z = torch.sigmoid(z_in + z_hidden)
        n = torch.tanh(n_in + r * n_hidden)
        nodes = n + z * (nodes - n)
    return nodes


def _mean(messages: torch.Tensor, sender: torch.Tensor, receiver: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    total = torch.zeros_like(messages).index_add(0, receiver, messages[sender] * weight[:, None])
    degree = torch.zeros(len(messages), dtype=weight.dtype, device=weight.device).index_add(0, receiver, weight)
    return total / torch.where(degree > 0, degree, torch.ones_like(degree))[:, None]
