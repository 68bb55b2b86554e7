"""The weights of SR-GNN's gated layer."""

from __future__ import annotations

from collections.abc import Mapping
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

    ``from_srgnn`` and ``from_recbole_gnn`` take checkpoints of other programs over.
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

    @classmethod
    def from_srgnn(cls, state: Mapping[str, torch.Tensor], prefix: str = "gnn.") -> GatedGraphWeights:
        """Take over a checkpoint of the original SR-GNN (``pytorch_code``), or of RecBole's SRGNN (``prefix="gnn."`` too).

        Its aggregates have biases of their own, b_iah and b_oah (b_ioh in RecBole), for every node, also without edges: the
        same as ``b_ih + W_ih [b_iah ; b_oah]`` in the gates. ``linear_edge_f`` takes no part in its layer.

        Args:
            state: the checkpoint's state dictionary.
            prefix: what stands before the cell's names in it.

        Raises:
            KeyError: a tensor is missing; the message names it.
        """
        out_bias = "b_oah" if f"{prefix}b_oah" in state else "b_ioh"
        aggregate_bias = torch.cat([_named(state, f"{prefix}b_iah"), _named(state, prefix + out_bias)])
        gate_input = _named(state, f"{prefix}w_ih")
        return cls(
            edge_in=_named(state, f"{prefix}linear_edge_in.weight"),
            edge_in_bias=_named(state, f"{prefix}linear_edge_in.bias"),
            edge_out=_named(state, f"{prefix}linear_edge_out.weight"),
            edge_out_bias=_named(state, f"{prefix}linear_edge_out.bias"),
            gate_input=gate_input,
            gate_input_bias=_named(state, f"{prefix}b_ih") + gate_input @ aggregate_bias,
            gate_hidden=_named(state, f"{prefix}w_hh"),
            gate_hidden_bias=_named(state, f"{prefix}b_hh"),
        )

    @classmethod
    def from_recbole_gnn(cls, state: Mapping[str, torch.Tensor], prefix: str = "gnncell.") -> GatedGraphWeights:
        """Take over a checkpoint of RecBole-GNN's SR-GNN cell.

        It mixes with 1 - z where SR-GNN mixes with z, and 1 - sigmoid(a) = sigmoid(-a): the z blocks of all gate tensors are
        negated.

        Args:
            state: the checkpoint's state dictionary.
            prefix: what stands before the cell's names in it.

        Raises:
            KeyError: a tensor is missing; the message names it.
        """
        d = len(_named(state, f"{prefix}incomming_conv.lin.weight"))
        sign = torch.ones(3 * d, 1)
        sign[d : 2 * d] = -1

        def turned(name: str) -> torch.Tensor:
            tensor = _named(state, prefix + name)
            return tensor * (sign if tensor.ndim == 2 else sign[:, 0]).to(tensor)

        return cls(
            edge_in=_named(state, f"{prefix}incomming_conv.lin.weight"),
            edge_in_bias=_named(state, f"{prefix}incomming_conv.lin.bias"),
            edge_out=_named(state, f"{prefix}outcomming_conv.lin.weight"),
            edge_out_bias=_named(state, f"{prefix}outcomming_conv.lin.bias"),
            gate_input=turned("lin_ih.weight"),
            gate_input_bias=turned("lin_ih.bias"),
            gate_hidden=turned("lin_hh.weight"),
            gate_hidden_bias=turned("lin_hh.bias"),
        )


def _named(state: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    if name not in state:
        raise KeyError(f"the checkpoint has no {name!r}")
    return state[name]
