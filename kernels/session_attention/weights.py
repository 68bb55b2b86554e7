"""The weights of GC-SAN's self-attention block."""

from __future__ import annotations

from typing import NamedTuple

import torch


class SessionAttentionWeights(NamedTuple):
    """Parameters of one post-norm self-attention block.

    Attributes:
        query_key_value: [3d, d], blocks query, key, value; heads are slices of d / heads in each.
        query_key_value_bias: [3d].
        output: [d, d].
        output_bias: [d].
        attention_norm: [2, d], gain then shift of the layer norm after the attention.
        inner: [f, d], first map of the feed-forward part.
        inner_bias: [f].
        outer: [d, f], second map.
        outer_bias: [d].
        feed_forward_norm: [2, d], gain then shift of the layer norm after the feed-forward part.
    """

    query_key_value: torch.Tensor
    query_key_value_bias: torch.Tensor
    output: torch.Tensor
    output_bias: torch.Tensor
    attention_norm: torch.Tensor
    inner: torch.Tensor
    inner_bias: torch.Tensor
    outer: torch.Tensor
    outer_bias: torch.Tensor
    feed_forward_norm: torch.Tensor

    @property
    def dimension(self) -> int:
        """d."""
        return self.output.shape[0]

    @classmethod
    def initial(cls, dimension: int, inner: int, generator: torch.Generator | None = None) -> SessionAttentionWeights:
        """Fresh float32 weights: normal with deviation 0.02, biases zero, norms the identity."""

        def draw(*shape: int) -> torch.Tensor:
            return torch.empty(*shape).normal_(0.0, 0.02, generator=generator)

        d = dimension
        norm = torch.stack([torch.ones(d), torch.zeros(d)])
        return cls(
            draw(3 * d, d),
            torch.zeros(3 * d),
            draw(d, d),
            torch.zeros(d),
            norm,
            draw(inner, d),
            torch.zeros(inner),
            draw(d, inner),
            torch.zeros(d),
            norm.clone(),
        )
