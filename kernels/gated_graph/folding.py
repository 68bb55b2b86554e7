"""Two linear maps that follow each other, from a neighbour to the gate, made one."""

from __future__ import annotations

from typing import NamedTuple

import torch

from kernels.gated_graph.weights import GatedGraphWeights


class FoldedGraphWeights(NamedTuple):
    """What the gated layer's kernels read.

    A mean commutes with the linear maps before and after it, so they are one: C_in = W_ih[:, :d] W_in and c_in =
    W_ih[:, :d] b_in (out likewise with W_ih[:, d:]). It saves a fifth of the products.

    Attributes:
        maps: [9, d, d], blocks r, z, n of C_in, of C_out and of W_hh; rows are outputs.
        biases: [12, d], for each of r, z, n and h = W_hh,n x + b_hh,n: a bias for every node, one for nodes with incoming
            and one for nodes with outgoing edges.
    """

    maps: torch.Tensor
    biases: torch.Tensor

    @property
    def dimension(self) -> int:
        """d."""
        return self.maps.shape[1]


def folded(weights: GatedGraphWeights | FoldedGraphWeights) -> FoldedGraphWeights:
    """Fold; autograd carries gradients back to the weights.

    A dozen small operations, each of which costs a GPU as much as a whole layer of a small batch: who runs the same weights
    many times folds them once.

    Args:
        weights: of the gated layer; folded ones are left as they are.

    Returns:
        The same layer, in the weights' dtype.
    """
    if isinstance(weights, FoldedGraphWeights):
        return weights
    d = weights.dimension
    gate_in, gate_out = weights.gate_input[:, :d], weights.gate_input[:, d:]
    maps = torch.cat([gate_in @ weights.edge_in, gate_out @ weights.edge_out, weights.gate_hidden]).view(9, d, d)
    both = weights.gate_input_bias[: 2 * d] + weights.gate_hidden_bias[: 2 * d]
    nothing = both.new_zeros(d)
    always = torch.cat([both, weights.gate_input_bias[2 * d :], weights.gate_hidden_bias[2 * d :]])
    with_edges = [
        torch.cat([gate_in @ weights.edge_in_bias, nothing]),
        torch.cat([gate_out @ weights.edge_out_bias, nothing]),
    ]
    biases = torch.stack([one.view(4, d) for one in (always, *with_edges)], dim=1)
    return FoldedGraphWeights(maps, biases.view(12, d))
