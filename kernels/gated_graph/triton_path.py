"""The gated layers as operators of torch, so that autograd, torch.compile and checkpointing see through the kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from kernels.gated_graph.backward import launch_backward
from kernels.gated_graph.folding import FoldedGraphWeights
from kernels.gated_graph.forward import launch_forward
from kernels.gated_graph.launch import padded_dimension
from kernels.session_graph import SessionGraph


@torch.library.custom_op("llmgr::gated_layers_forward", mutates_args=())
def gated_layers_forward(
    nodes: torch.Tensor,
    maps: torch.Tensor,
    biases: torch.Tensor,
    tile_offsets: torch.Tensor,
    wide_blocks: torch.Tensor,
    planes: torch.Tensor,
    degrees: torch.Tensor,
    num_layers: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``launch_forward``."""
    return launch_forward(
        nodes.contiguous(), maps.contiguous(), biases.contiguous(), tile_offsets, wide_blocks, planes, degrees, num_layers
    )


@torch.library.custom_op("llmgr::gated_layers_backward", mutates_args=())
def gated_layers_backward(
    grad: torch.Tensor,
    nodes: torch.Tensor,
    states: torch.Tensor,
    maps: torch.Tensor,
    biases: torch.Tensor,
    tile_offsets: torch.Tensor,
    wide_blocks: torch.Tensor,
    planes: torch.Tensor,
    degrees: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As ``launch_backward``."""
    return launch_backward(
        grad.contiguous(),
        nodes.contiguous(),
        states,
        maps.contiguous(),
        biases.contiguous(),
        tile_offsets,
        wide_blocks,
        planes,
        degrees,
    )


@gated_layers_forward.register_fake
def _(nodes: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return nodes.new_empty(nodes.shape), nodes.new_empty(rest[-1] - 1, *nodes.shape)


@gated_layers_backward.register_fake
def _(
    grad: torch.Tensor, nodes: torch.Tensor, states: torch.Tensor, maps: torch.Tensor, biases: torch.Tensor, *graph: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return nodes.new_empty(nodes.shape), maps.new_empty(maps.shape), biases.new_empty(biases.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    nodes, *rest, _ = inputs
    ctx.save_for_backward(nodes, output[1], *rest)


def _gradients(ctx: Any, grad: torch.Tensor, states_grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    # The states between layers are ours alone: nothing else can send a gradient to them.
    found = gated_layers_backward(grad, *ctx.saved_tensors)
    return (*found, None, None, None, None, None)


gated_layers_forward.register_autograd(_gradients, setup_context=_save)


def padded(
    nodes: torch.Tensor, weights: FoldedGraphWeights, projection: torch.Tensor
) -> tuple[torch.Tensor, FoldedGraphWeights, torch.Tensor]:
    """The same with d one of the few dimensions that the kernels are compiled for.

    Channels whose maps and biases are zero stay zero through every layer: their candidate is tanh(0).
    """
    padding = padded_dimension(nodes.shape[1], nodes.dtype) - nodes.shape[1]
    if padding == 0:
        return nodes, weights, projection
    wider = FoldedGraphWeights(
        functional.pad(weights.maps, (0, padding, 0, padding)), functional.pad(weights.biases, (0, padding))
    )
    return functional.pad(nodes, (0, padding)), wider, functional.pad(projection, (0, padding))


def gated_graph_layers_triton(
    nodes: torch.Tensor, graph: SessionGraph, weights: FoldedGraphWeights, num_layers: int, edge_weights: str = "binary"
) -> torch.Tensor:
    """Same meaning as ``gated_graph_layers_reference``."""
    if num_layers == 0 or graph.num_nodes == 0:
        return nodes
    tiles = graph.tiles if edge_weights == "binary" else graph.weighted_tiles
    d = nodes.shape[1]
    nodes, weights, _ = padded(nodes, weights, nodes)
    out: torch.Tensor
    out, _ = gated_layers_forward(
        nodes, *weights, tiles.tile_offsets, tiles.wide_blocks, tiles.planes, tiles.degrees, num_layers
    )
    return out[:, :d]
