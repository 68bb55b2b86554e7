"""The weights of SR-GNN's attention readout."""

from __future__ import annotations

from typing import NamedTuple

import torch


class ReadoutWeights(NamedTuple):
    """Parameters of SR-GNN's readout.

    Attributes:
        last: [d, d], applied to the last click (W_1).
        node: [d, d], applied to every node (W_2).
        bias: [d], of both together (c); SR-GNN's two biases added up.
        score: [d], from the sigmoid to the weight alpha (q).
        output: [d, 2d], columns [attended, last] (W_3).
        output_bias: [d].
    """

    last: torch.Tensor
    node: torch.Tensor
    bias: torch.Tensor
    score: torch.Tensor
    output: torch.Tensor
    output_bias: torch.Tensor

    @property
    def dimension(self) -> int:
        """d."""
        return self.last.shape[0]

    @classmethod
    def initial(cls, dimension: int, generator: torch.Generator | None = None) -> ReadoutWeights:
        """Fresh float32 weights, uniform in ±1/sqrt(d) as in SR-GNN, biases too."""
        bound = dimension**-0.5

        def draw(*shape: int) -> torch.Tensor:
            return torch.empty(*shape).uniform_(-bound, bound, generator=generator)

        d = dimension
        return cls(draw(d, d), draw(d, d), draw(d), draw(d), draw(d, 2 * d), draw(d))
