"""SR-GNN's attention readout: one vector z_s a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kernels.attention_readout.torch_path import attention_readout_torch
from kernels.attention_readout.weights import ReadoutWeights
from kernels.dispatch import chosen_path

if TYPE_CHECKING:
    from kernels.session_graph import SessionGraph

# What a program of the kernel holds.
WIDEST = 128

__all__ = ["ReadoutWeights", "attention_readout"]


def attention_readout(nodes: torch.Tensor, graph: SessionGraph, weights: ReadoutWeights) -> torch.Tensor:
    """Read every session out: z_s = W_3 [sum_i alpha_i x_i ; x_last] + b (SR-GNN, Wu et al. 2019, eq. 6-7).

    The sum goes over the clicks of the session; a node counts as often as it was clicked. alpha_i is not normalised.
    The formula stands in ``kernels.attention_readout.reference``.

    Args:
        nodes: float [N, d], node vectors after the layers.
        graph: B session graphs with N nodes, on the same device.
        weights: tensors of the dtype of ``nodes``.

    Returns:
        float [B, d]; zeros for an empty session. Differentiable, same result on every run.

    Raises:
        ValueError: shapes do not fit.
    """
    if nodes.shape != (graph.num_nodes, weights.dimension):
        raise ValueError(f"nodes are {tuple(nodes.shape)}, graph and weights need {(graph.num_nodes, weights.dimension)}")
    unsupported = f"d = {weights.dimension} is more than {WIDEST}" if weights.dimension > WIDEST else ""
    if chosen_path("attention_readout", ("torch", "triton"), nodes, unsupported) == "triton":
        from kernels.attention_readout.triton_path import attention_readout_triton

        return attention_readout_triton(nodes, graph, weights)
    return attention_readout_torch(nodes, graph, weights)
