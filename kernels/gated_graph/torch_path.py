"""The gated layer with folded weights and a written-out backward."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from kernels.gated_graph.mean_edges import MeanEdges
from kernels.gated_graph.weights import GatedGraphWeights
from kernels.session_graph import SessionGraph


def gated_graph_layers_torch(
    nodes: torch.Tensor, graph: SessionGraph, weights: GatedGraphWeights, num_layers: int, edge_weights: str = "binary"
) -> torch.Tensor:
    """Same meaning as ``gated_graph_layers_reference``.

    Two linear maps follow each other between a neighbour and the gate, and a mean commutes with both, so they are one:

        C_in = W_ih[:, :d] W_in,  c_in = W_ih[:, :d] b_in        (out likewise with W_ih[:, d:])

    which saves a fifth of the products. autograd carries the gradient of C back to the weights.
    """
    if num_layers == 0 or graph.num_nodes == 0:
        return nodes
    d = weights.dimension
    gate_in, gate_out = weights.gate_input[:, :d], weights.gate_input[:, d:]
    folded = torch.cat([gate_in @ weights.edge_in, gate_out @ weights.edge_out], dim=1)
    edge_bias = torch.stack([gate_in @ weights.edge_in_bias, gate_out @ weights.edge_out_bias])
    edges = MeanEdges.of(graph, edge_weights, nodes.dtype)
    for _ in range(num_layers):
        nodes = _GatedLayer.apply(  # type: ignore[no-untyped-call]
            nodes, folded, edge_bias, weights.gate_input_bias, weights.gate_hidden, weights.gate_hidden_bias, edges
        )
    return nodes


class _GatedLayer(torch.autograd.Function):
    """One layer on folded weights; saves the gates, since recomputing their products costs a CPU more than reading them."""

    @staticmethod
    def forward(
        ctx: Any,
        nodes: torch.Tensor,
        folded: torch.Tensor,
        edge_bias: torch.Tensor,
        input_bias: torch.Tensor,
        hidden_weight: torch.Tensor,
        hidden_bias: torch.Tensor,
        edges: MeanEdges,
    ) -> torch.Tensor:
        d = nodes.shape[1]
        means = torch.cat(edges.means(nodes), dim=1)
        gates = torch.addmm(input_bias, means, folded.T).addmm_(edges.has_edges, edge_bias)
        gates[:, : 2 * d] += hidden_bias[: 2 * d]
        gates[:, : 2 * d].addmm_(nodes, hidden_weight[: 2 * d].T)
        hidden_candidate = torch.addmm(hidden_bias[2 * d :], nodes, hidden_weight[2 * d :].T)
        reset_update = torch.sigmoid(gates[:, : 2 * d])
        reset, update = reset_update[:, :d], reset_update[:, d:]
        # tanh(x) = 2 sigmoid(2x) - 1: torch's sigmoid is several times faster on a CPU than its tanh.
        candidate = torch.addcmul(gates[:, 2 * d :], reset, hidden_candidate)
        candidate.mul_(2).sigmoid_().mul_(2).sub_(1)
        ctx.save_for_backward(nodes, means, reset_update, hidden_candidate, candidate, folded, hidden_weight)
        ctx.edges = edges
        return torch.lerp(candidate, nodes, update)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        nodes, means, reset_update, hidden_candidate, candidate, folded, hidden_weight = ctx.saved_tensors
        edges: MeanEdges = ctx.edges
        d = nodes.shape[1]
        reset, update = reset_update[:, :d], reset_update[:, d:]
        # Blocks [candidate of hidden | reset | update | candidate]: the gate from the hidden side is the first three, the
        # gate from the edges the last three, without a copy.
        pre = grad.new_empty(len(nodes), 4 * d)
        hidden_part, reset_part, update_part, candidate_part = pre.chunk(4, dim=1)
        candidate_grad = torch.addcmul(grad, grad, update, value=-1)
        torch.addcmul(candidate_grad, candidate_grad, candidate.square(), value=-1, out=candidate_grad)
        candidate_part.copy_(candidate_grad)
        torch.mul(candidate_grad, reset, out=hidden_part)
        update_part.copy_((nodes - candidate).mul_(grad))
        torch.mul(candidate_grad, hidden_candidate, out=reset_part)
        pre[:, d : 3 * d] *= torch.addcmul(reset_update, reset_update, reset_update, value=-1)

        from_hidden, from_edges = pre[:, : 3 * d], pre[:, d:]
        rotated = torch.cat([hidden_weight[2 * d :], hidden_weight[: 2 * d]])
        nodes_grad = means_grad = None
        if ctx.needs_input_grad[0]:
            nodes_grad = (grad * update).addmm_(from_hidden, rotated)
            means_grad = from_edges @ folded
            nodes_grad += edges.transposed(means_grad[:, :d].contiguous(), means_grad[:, d:].contiguous())
        hidden_weight_grad = from_hidden.T @ nodes
        sums = pre.sum(dim=0)
        return (
            nodes_grad,
            from_edges.T @ means,
            edges.has_edges.T @ from_edges,
            sums[d:],
            torch.cat([hidden_weight_grad[d:], hidden_weight_grad[:d]]),
            torch.cat([sums[d : 3 * d], sums[:d]]),
            None,
        )
