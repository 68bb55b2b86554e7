"""The gated layer in plain torch operations."""

from kernels.gated_graph.reference import gated_graph_layers_reference as gated_graph_layers_torch

__all__ = ["gated_graph_layers_torch"]
