"""The attention readout as operators of torch, so that autograd, torch.compile and checkpointing see through them."""

from __future__ import annotations

from typing import Any

import torch

from kernels.attention_readout import backward, forward
from kernels.attention_readout.weights import ReadoutWeights
from kernels.session_graph import SessionGraph


@torch.library.custom_op("llmgr::attention_readout_forward", mutates_args=())
def attention_readout_forward(
    nodes: torch.Tensor,
    node_offsets: torch.Tensor,
    last_node: torch.Tensor,
    node_clicks: torch.Tensor,
    weights: list[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """z, [B, d], and what the backward launch wants: [attended ; x_last], [B, 2d]."""
    return forward.launch(nodes, node_offsets, last_node, node_clicks, weights)


@torch.library.custom_op("llmgr::attention_readout_backward", mutates_args=())
def attention_readout_backward(
    grad_z: torch.Tensor,
    nodes: torch.Tensor,
    node_offsets: torch.Tensor,
    last_node: torch.Tensor,
    node_clicks: torch.Tensor,
    joined: torch.Tensor,
    weights: list[torch.Tensor],
) -> list[torch.Tensor]:
    """Gradients of the nodes and of the six weights."""
    return backward.launch(grad_z, nodes, node_offsets, last_node, node_clicks, joined, weights)


@attention_readout_forward.register_fake
def _(
    nodes: torch.Tensor,
    node_offsets: torch.Tensor,
    last_node: torch.Tensor,
    node_clicks: torch.Tensor,
    weights: list[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    sessions, d = last_node.shape[0], nodes.shape[1]
    return nodes.new_empty(sessions, d), nodes.new_empty(sessions, 2 * d)


@attention_readout_backward.register_fake
def _(
    grad_z: torch.Tensor,
    nodes: torch.Tensor,
    node_offsets: torch.Tensor,
    last_node: torch.Tensor,
    node_clicks: torch.Tensor,
    joined: torch.Tensor,
    weights: list[torch.Tensor],
) -> list[torch.Tensor]:
    return [tensor.new_empty(tensor.shape) for tensor in (nodes, *weights)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    *tensors, weights = inputs
    joined = output[1]
    ctx.mark_non_differentiable(joined)
    ctx.save_for_backward(*tensors, joined, *weights)


def _gradients(ctx: Any, grad_z: torch.Tensor, _: torch.Tensor) -> tuple[Any, ...]:
    nodes, node_offsets, last_node, node_clicks, joined, *weights = ctx.saved_tensors
    grad_nodes, *grads = attention_readout_backward(grad_z, nodes, node_offsets, last_node, node_clicks, joined, weights)
    return grad_nodes, None, None, None, grads


attention_readout_forward.register_autograd(_gradients, setup_context=_save)


def attention_readout_triton(nodes: torch.Tensor, graph: SessionGraph, weights: ReadoutWeights) -> torch.Tensor:
    """Same meaning as ``attention_readout_reference``."""
    z: torch.Tensor = attention_readout_forward(nodes, graph.node_offsets, graph.last_node, graph.node_clicks, list(weights))[0]
    return z
