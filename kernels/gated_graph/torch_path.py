"""The gated layer on a CPU: folded weights, rows in blocks that stay in the cache, a written-out backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from kernels.gated_graph.folding import FoldedGraphWeights, folded
from kernels.gated_graph.mean_edges import MeanEdges
from kernels.gated_graph.weights import GatedGraphWeights
from kernels.session_graph import SessionGraph

# What a block of rows needs at d = 64 in float32, 1.8 MB, stays in the cache of one core; smaller ones cost more calls.
BLOCK_ROWS = 1024


def gated_graph_layers_torch(
    nodes: torch.Tensor,
    graph: SessionGraph,
    weights: GatedGraphWeights | FoldedGraphWeights,
    num_layers: int,
    edge_weights: str = "binary",
) -> torch.Tensor:
    """Same meaning as ``gated_graph_layers_reference``; ``FoldedGraphWeights`` says what is folded."""
    if num_layers == 0 or graph.num_nodes == 0:
        return nodes
    maps, biases = folded(weights)
    edges = MeanEdges.of(graph, edge_weights, nodes.dtype)
    # Inside the function gradients are always off.
    training = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (nodes, maps, biases))
    for _ in range(num_layers):
        nodes = _GatedLayer.apply(nodes, maps, biases, edges, training)  # type: ignore[no-untyped-call]
    return nodes


class _Stacked(NamedTuple):
    """Folded weights side by side, one matrix a product.

    Attributes:
        gates: [2d, 3d + 2], from (mean_in, mean_out, has incoming, has outgoing edges, x) to r and z.
        candidate: [d, 2d + 2], from all of these but x to n.
        hidden: [d, d], from x to h = W_hh,n x + b_hh,n.
        gate_bias: [2d]; candidate_bias, hidden_bias: [d].
    """

    gates: torch.Tensor
    candidate: torch.Tensor
    hidden: torch.Tensor
    gate_bias: torch.Tensor
    candidate_bias: torch.Tensor
    hidden_bias: torch.Tensor

    @classmethod
    def of(cls, weights: FoldedGraphWeights) -> _Stacked:
        d = weights.dimension
        maps, biases = weights.maps.view(3, 3, d, d), weights.biases.view(4, 3, d)
        return cls(
            gates=torch.cat(
                [
                    *maps[:2, :2].reshape(2, 2 * d, d),
                    biases[:2, 1:].transpose(1, 2).reshape(2 * d, 2),
                    maps[2, :2].reshape(2 * d, d),
                ],
                dim=1,
            ),
            candidate=torch.cat([*maps[:2, 2], biases[2, 1:].T], dim=1),
            hidden=maps[2, 2],
            gate_bias=biases[:2, 0].reshape(2 * d),
            candidate_bias=biases[2, 0],
            hidden_bias=biases[3, 0],
        )


class _Kept(NamedTuple):
    """What the backward pass reads, or one block of it: reading it costs a CPU less than its products.

    Attributes:
        inputs: [N, 3d + 2], mean_in, mean_out, has incoming, has outgoing edges, x side by side.
        gates: [N, 2d], r and z.
        hidden: [N, d], h.
        candidate: [N, d], n.
    """

    inputs: torch.Tensor
    gates: torch.Tensor
    hidden: torch.Tensor
    candidate: torch.Tensor

    @classmethod
    def empty(cls, rows: int, like: torch.Tensor) -> _Kept:
        d = like.shape[1]
        return cls(*[like.new_empty(rows, width) for width in (3 * d + 2, 2 * d, d, d)])

    def rows(self, begin: int, end: int) -> _Kept:
        return _Kept(*[tensor[begin:end] for tensor in self])


class _GatedLayer(torch.autograd.Function):
    """One layer. Between products a block of rows never leaves the cache, nor is fresh memory asked for."""

    @staticmethod
    def forward(
        ctx: Any, nodes: torch.Tensor, maps: torch.Tensor, biases: torch.Tensor, edges: MeanEdges, training: bool
    ) -> torch.Tensor:
        num_nodes = len(nodes)
        means = edges.means(nodes)
        stacked = _Stacked.of(FoldedGraphWeights(maps, biases))
        kept = _Kept.empty(num_nodes if training else min(BLOCK_ROWS, num_nodes), nodes)
        out = torch.empty_like(nodes)
        for begin in range(0, num_nodes, BLOCK_ROWS):
            end = min(begin + BLOCK_ROWS, num_nodes)
            block = kept.rows(begin, end) if training else kept.rows(0, end - begin)
            _forward_block(block, [mean[begin:end] for mean in means], nodes[begin:end], edges.has_edges[begin:end], stacked)
            d = nodes.shape[1]
            torch.lerp(block.candidate, nodes[begin:end], block.gates[:, d:], out=out[begin:end])
        if training:
            ctx.save_for_backward(maps, biases, *kept)
            ctx.edges = edges
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        maps, biases, *kept = ctx.saved_tensors
        edges: MeanEdges = ctx.edges
        num_nodes, d = grad.shape
        stacked = _Stacked.of(FoldedGraphWeights(maps, biases))
        sums = [torch.zeros_like(matrix, memory_format=torch.contiguous_format) for matrix in stacked[:3]]
        bias_sums = grad.new_zeros(4 * d)
        nodes_grad, mean_in_grad, mean_out_grad = (torch.empty_like(grad) for _ in range(3))
        pre = grad.new_empty(min(BLOCK_ROWS, num_nodes), 4 * d)
        inputs_grad = grad.new_empty(len(pre), 3 * d + 2)
        for begin in range(0, num_nodes, BLOCK_ROWS):
            end = min(begin + BLOCK_ROWS, num_nodes)
            block = _Kept(*kept).rows(begin, end)
            own, inputs = pre[: end - begin], inputs_grad[: end - begin]
            _gate_gradients(own, grad[begin:end], block)
            from_gates, from_candidate, from_hidden = own[:, : 2 * d], own[:, 2 * d : 3 * d], own[:, 3 * d :]
            torch.mm(from_gates, stacked.gates, out=inputs)
            inputs[:, : 2 * d + 2].addmm_(from_candidate, stacked.candidate)
            inputs[:, 2 * d + 2 :].addmm_(from_hidden, stacked.hidden).addcmul_(grad[begin:end], block.gates[:, d:])
            for target, first in ((mean_in_grad, 0), (mean_out_grad, d), (nodes_grad, 2 * d + 2)):
                target[begin:end] = inputs[:, first : first + d]
            sums[0].addmm_(from_gates.T, block.inputs)
            sums[1].addmm_(from_candidate.T, block.inputs[:, : 2 * d + 2])
            sums[2].addmm_(from_hidden.T, block.inputs[:, 2 * d + 2 :])
            bias_sums += own.sum(dim=0)
        if ctx.needs_input_grad[0]:
            nodes_grad += edges.transposed(mean_in_grad, mean_out_grad)
        return nodes_grad, *_unstacked(sums, bias_sums), None, None


def _forward_block(
    block: _Kept, means: list[torch.Tensor], nodes: torch.Tensor, has_edges: torch.Tensor, stacked: _Stacked
) -> None:
    d = nodes.shape[1]
    torch.cat([*means, has_edges, nodes], dim=1, out=block.inputs)
    torch.addmm(stacked.gate_bias, block.inputs, stacked.gates.T, out=block.gates).sigmoid_()
    torch.addmm(stacked.hidden_bias, nodes, stacked.hidden.T, out=block.hidden)
    torch.addmm(stacked.candidate_bias, block.inputs[:, : 2 * d + 2], stacked.candidate.T, out=block.candidate)
    block.candidate.addcmul_(block.gates[:, :d], block.hidden)
    # tanh(x) = 2 sigmoid(2x) - 1: torch's sigmoid is several times faster on a CPU than its tanh.
    block.candidate.mul_(2).sigmoid_().mul_(2).sub_(1)


def _gate_gradients(pre: torch.Tensor, grad: torch.Tensor, block: _Kept) -> None:
    """Gradients before the activations into ``pre`` [rows, 4d], blocks r, z, n, h, with g the gradient of x':

    dn = g (1 - z) (1 - n^2),   dz = g (x - n) z (1 - z),   dh = dn r,   dr = dn h r (1 - r)
    """
    d = grad.shape[1]
    reset_part, update_part, candidate_part, hidden_part = pre.chunk(4, dim=1)
    reset, update = block.gates[:, :d], block.gates[:, d:]
    candidate = torch.addcmul(grad, grad, update, value=-1)
    torch.addcmul(candidate, candidate, block.candidate.square(), value=-1, out=candidate_part)
    torch.mul(candidate_part, reset, out=hidden_part)
    torch.mul(candidate_part, block.hidden, out=reset_part)
    torch.sub(block.inputs[:, 2 * d + 2 :], block.candidate, out=update_part).mul_(grad)
    pre[:, : 2 * d] *= torch.addcmul(block.gates, block.gates, block.gates, value=-1)


def _unstacked(sums: list[torch.Tensor], bias_sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(maps [9, d, d], biases [12, d]) from gradients laid out as ``_Stacked``'s matrices, and from those of r, z, n, h summed
    over all nodes."""
    gates, candidate, hidden = sums
    d = len(hidden)
    maps = hidden.new_empty(3, 3, d, d)
    biases = hidden.new_zeros(4, 3, d)
    for side in (0, 1):
        columns = slice(side * d, (side + 1) * d)
        maps[side, :2] = gates[:, columns].view(2, d, d)
        maps[side, 2] = candidate[:, columns]
        biases[:2, 1 + side] = gates[:, 2 * d + side].view(2, d)
        biases[2, 1 + side] = candidate[:, 2 * d + side]
    maps[2, :2] = gates[:, 2 * d + 2 :].view(2, d, d)
    maps[2, 2] = hidden
    biases[:, 0] = bias_sums.view(4, d)
    return maps.view(9, d, d), biases.view(12, d)
