"""The gated layer as others run it. All take binary edges and compute what ``gated_graph_layers`` computes."""

from __future__ import annotations

import importlib
from typing import NamedTuple

import torch
from torch.nn import functional

from kernels.gated_graph.weights import GatedGraphWeights
from kernels.session_graph import SessionGraph


def recbole_style(
    nodes: torch.Tensor, source: torch.Tensor, target: torch.Tensor, weights: GatedGraphWeights, num_layers: int
) -> torch.Tensor:
    """Gather and scatter along the edges, degrees counted in every layer, the gate spelt out: the usual eager cell."""
    for _ in range(num_layers):
        incoming = functional.linear(nodes, weights.edge_in, weights.edge_in_bias)
        outgoing = functional.linear(nodes, weights.edge_out, weights.edge_out_bias)
        aggregates = torch.cat([_scatter_mean(incoming, source, target), _scatter_mean(outgoing, target, source)], dim=1)
        from_edges = functional.linear(aggregates, weights.gate_input, weights.gate_input_bias)
        from_self = functional.linear(nodes, weights.gate_hidden, weights.gate_hidden_bias)
        nodes = _gate(nodes, from_edges, from_self)
    return nodes


def gru_cell_index_add(
    nodes: torch.Tensor, source: torch.Tensor, target: torch.Tensor, weights: GatedGraphWeights, num_layers: int
) -> torch.Tensor:
    """torch's fused GRU cell over segment means; degrees counted once. The strongest form in plain torch."""
    in_scale = _degree(target, nodes).clamp_(min=1).reciprocal_()[:, None]
    out_scale = _degree(source, nodes).clamp_(min=1).reciprocal_()[:, None]
    for _ in range(num_layers):
        incoming = functional.linear(nodes, weights.edge_in, weights.edge_in_bias)
        outgoing = functional.linear(nodes, weights.edge_out, weights.edge_out_bias)
        a_in = torch.zeros_like(nodes).index_add(0, target, incoming.index_select(0, source)) * in_scale
        a_out = torch.zeros_like(nodes).index_add(0, source, outgoing.index_select(0, target)) * out_scale
        nodes = _gru_cell(torch.cat([a_in, a_out], dim=1), nodes, weights)
    return nodes


class DenseSessions(NamedTuple):
    """Sessions padded to the widest, as SR-GNN's published code feeds its layer; built before the clock starts.

    Attributes:
        adjacency_in: float [B, n, n], row v holds 1/m_v at each u with an edge (u, v).
        adjacency_out: float [B, n, n], row v holds 1/m'_v at each u with an edge (v, u).
        node_at: int64 [B, n], global node; 0 in the padding.
        place: int64 [N], place of each node among the B * n.
    """

    adjacency_in: torch.Tensor
    adjacency_out: torch.Tensor
    node_at: torch.Tensor
    place: torch.Tensor


def dense_sessions(graph: SessionGraph, dtype: torch.dtype) -> DenseSessions:
    """Pad a graph."""
    sizes = graph.node_offsets.diff()
    widest = int(sizes.max()) if len(sizes) else 0
    starts = graph.node_offsets[:-1]
    place = torch.arange(graph.num_nodes, device=graph.device) + (
        torch.arange(graph.num_sessions, device=graph.device) * widest - starts
    ).repeat_interleave(sizes)
    node_at = torch.zeros(graph.num_sessions * widest, dtype=torch.int64, device=graph.device)
    node_at[place] = torch.arange(graph.num_nodes, device=graph.device)
    links = torch.zeros(graph.num_sessions, widest, widest, device=graph.device)
    session = graph.node_session[graph.edge_source]
    links[session, graph.edge_source - starts[session], graph.edge_target - starts[session]] = 1.0
    into = links.transpose(1, 2)
    return DenseSessions(
        (into / into.sum(2, keepdim=True).clamp_(min=1)).to(dtype),
        (links / links.sum(2, keepdim=True).clamp_(min=1)).to(dtype),
        node_at.view(graph.num_sessions, widest),
        place,
    )


def dense_padded(nodes: torch.Tensor, dense: DenseSessions, weights: GatedGraphWeights, num_layers: int) -> torch.Tensor:
    """Batched products with the padded adjacency (SR-GNN's published form)."""
    x = functional.embedding(dense.node_at, nodes)
    for _ in range(num_layers):
        a_in = torch.bmm(dense.adjacency_in, functional.linear(x, weights.edge_in, weights.edge_in_bias))
        a_out = torch.bmm(dense.adjacency_out, functional.linear(x, weights.edge_out, weights.edge_out_bias))
        from_edges = functional.linear(torch.cat([a_in, a_out], dim=2), weights.gate_input, weights.gate_input_bias)
        from_self = functional.linear(x, weights.gate_hidden, weights.gate_hidden_bias)
        x = _gate(x, from_edges, from_self)
    return x.reshape(-1, x.shape[2]).index_select(0, dense.place)


def pyg_convolutions(
    nodes: torch.Tensor, source: torch.Tensor, target: torch.Tensor, weights: GatedGraphWeights, num_layers: int
) -> torch.Tensor:
    """PyG's mean convolution both ways, and torch's GRU cell.

    Raises:
        ImportError: PyG is not installed.
    """
    convolution = importlib.import_module("torch_geometric.nn").SimpleConv
    along, against = convolution(aggr="mean"), convolution(aggr="mean", flow="target_to_source")
    edges = torch.stack([source, target])
    for _ in range(num_layers):
        a_in = along(functional.linear(nodes, weights.edge_in, weights.edge_in_bias), edges)
        a_out = against(functional.linear(nodes, weights.edge_out, weights.edge_out_bias), edges)
        nodes = _gru_cell(torch.cat([a_in, a_out], dim=1), nodes, weights)
    return nodes


def _gru_cell(inputs: torch.Tensor, hidden: torch.Tensor, weights: GatedGraphWeights) -> torch.Tensor:
    return torch.gru_cell(
        inputs, hidden, weights.gate_input, weights.gate_hidden, weights.gate_input_bias, weights.gate_hidden_bias
    )


def _gate(nodes: torch.Tensor, from_edges: torch.Tensor, from_self: torch.Tensor) -> torch.Tensor:
    reset_in, update_in, candidate_in = from_edges.chunk(3, dim=-1)
    reset_self, update_self, candidate_self = from_self.chunk(3, dim=-1)
    reset = torch.sigmoid(reset_in + reset_self)
    update = torch.sigmoid(update_in + update_self)
    candidate = torch.tanh(candidate_in + reset * candidate_self)
    return candidate + update * (nodes - candidate)


def _scatter_mean(messages: torch.Tensor, sender: torch.Tensor, receiver: torch.Tensor) -> torch.Tensor:
    index = receiver[:, None].expand(-1, messages.shape[1])
    total = torch.zeros_like(messages).scatter_add(0, index, messages.index_select(0, sender))
    return total / _degree(receiver, messages).clamp(min=1)[:, None]


def _degree(receiver: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    # Counted in float32: half precision stops counting at 2,048 (256 in bfloat16).
    ones = torch.ones(len(receiver), device=like.device)
    return torch.zeros(len(like), device=like.device).scatter_add(0, receiver, ones).to(like.dtype)
