"""The weights of SR-GNN's gated layer."""

from __future__ import annotations

from typing import NamedTuple

import torch


class GatedGraphWeights(NamedTuple):
    """Parameters of the gated session-graph layer, shared by all L layers.

    Attributes:
        edge_in: [d, d], applied to what arrives over incoming edges (W_in).
        edge_in_bias: [d], added once per node that has incoming edges (b_in).
        edge_out: [d, d], applied to what arrives over outgoing edges (W_out).
        edge_out_bias: [d] (b_out).
        gate_input: [3d, 2d], blocks r, z, n in GRUCell's order, columns [in, out] (W_ih).
        gate_input_bias: [3d] (b_ih).
        gate_hidden: [3d, d] (W_hh).
        gate_hidden_bias: [3d] (b_hh).

    The original SR-GNN adds b_iah and b_oah to the aggregates of every node, also without edges: exact here as
    ``gate_input_bias + gate_input @ cat([b_iah, b_oah])``. RecBole-GNN mixes with 1 - z: negate the z blocks
    (rows d:2d) of the four gate tensors to take its checkpoints over.
    """

    edge_in: torch.Tensor
    edge_in_bias: torch.Tensor
    edge_out: torch.Tensor
    edge_out_bias: torch.Tensor
    gate_input: torch.Tensor
    gate_input_bias: torch.Tensor
    gate_hidden: torch.Tensor
    gate_hidden_bias: torch.Tensor

    @property
    def dimension(self) -> int:
        """d."""
        return self.edge_in.shape[0]

    @classmethod
    def initial(cls, dimension: int, generator: torch.Generator | None = None) -> GatedGraphWeights:
        """Fresh float32 weights, uniform in ±1/sqrt(d) as in SR-GNN, biases too."""
        bound = dimension**-0.5

        def draw(*shape: int) -> torch.Tensor:
            return torch.empty(*shape).uniform_(-bound, bound, generator=generator)

        d = dimension
        return cls(draw(d, d), draw(d), draw(d, d), draw(d), draw(3 * d, 2 * d), draw(3 * d), draw(3 * d, d), draw(3 * d))
