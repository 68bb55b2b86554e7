"""Gated layers, forward, and forward with the gradients of nodes and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from kernels.benchmark.baselines.gated_graph import (
    dense_padded,
    dense_sessions,
    gru_cell_index_add,
    pyg_convolutions,
    recbole_style,
)
from kernels.benchmark.cases import Case, Prepared, Setting, against
from kernels.benchmark.ways import ways_of, why_no_package
from kernels.gated_graph import GatedGraphWeights, folded, gated_graph_layers
from kernels.gated_graph.reference import gated_graph_layers_reference
from kernels.session_graph import SessionGraph

D = 64
EAGER = "eager RecBole-style cell"
Function = Callable[..., torch.Tensor]


def layer_flop(num_nodes: int, num_layers: int) -> float:
    """Of L folded layers: [a_in ; a_out] (2d) and x (d), each to 3d, a multiplication and an addition a weight."""
    return 18.0 * D * D * num_nodes * num_layers


def graph_bytes(graph: SessionGraph) -> float:
    """What tells the edges: a mask of 64 bits and two degrees of 32 bits a node."""
    return 16.0 * graph.num_nodes


def placed_weights(setting: Setting) -> GatedGraphWeights:
    """Fresh weights, the same on every run."""
    weights = GatedGraphWeights.initial(D, torch.Generator().manual_seed(1))
    return GatedGraphWeights(*[setting.place(weight) for weight in weights])


def ready_graph(graph: SessionGraph, setting: Setting) -> SessionGraph:
    """On the device, with what it derives from itself made before the clock starts, tiles and sorted edges alike."""
    placed = graph.to(setting.device)
    _ = placed.tiles, placed.target_offsets, placed.source_offsets, placed.node_session
    return placed


def plain_layers(graph: SessionGraph, weights: GatedGraphWeights, num_layers: int = 1) -> dict[str, Function]:
    """The layers from nodes to nodes in operations of torch alone."""
    source, target = graph.edge_source, graph.edge_target
    return {
        EAGER: lambda nodes: recbole_style(nodes, source, target, weights, num_layers),
        "eager GRUCell, index_add": lambda nodes: gru_cell_index_add(nodes, source, target, weights, num_layers),
    }


def eager_layers(graph: SessionGraph, weights: GatedGraphWeights, setting: Setting, num_layers: int) -> dict[str, Function]:
    """Every baseline of the layers, from nodes to nodes."""
    source, target = graph.edge_source, graph.edge_target
    dense = dense_sessions(graph, setting.dtype)

    def scatter(nodes: torch.Tensor) -> torch.Tensor:
        from kernels.gated_graph.scatter_path import gated_graph_layers_scatter

        return gated_graph_layers_scatter(nodes, graph, weights, num_layers)

    return {
        **plain_layers(graph, weights, num_layers),
        "dense padded bmm": lambda nodes: dense_padded(nodes, dense, weights, num_layers),
        "torch-scatter": scatter,
        "PyG": lambda nodes: pyg_convolutions(nodes, source, target, weights, num_layers),
    }


MISSING = {"torch-scatter": "torch_scatter", "PyG": "torch_geometric"}


def layer_cases(setting: Setting) -> Iterator[Case]:
    """L layers over B sessions. Ours takes weights folded once, as a frozen encoder's are; with gradients each call folds."""
    for num_sessions, num_layers in setting.size(
        [(8, 2), (70, 1)],
        [(1024, 1), (1024, 3)],
        [(size, layers) for size in (1024, 4096, 16_384) for layers in (1, 3)],
    ):
        graph = setting.sessions.graph(num_sessions)
        yield Case(
            op="gated_layers",
            shape=f"B={num_sessions} L={num_layers}",
            moved_bytes=2.0 * graph.num_nodes * D * setting.item_bytes + graph_bytes(graph) + 18 * D * D * setting.item_bytes,
            flop=layer_flop(graph.num_nodes, num_layers),
            prepare=partial(_prepare, setting, graph, num_layers, False),
            facts={"nodes": graph.num_nodes, "edges": graph.num_edges},
        )


def backward_cases(setting: Setting) -> Iterator[Case]:
    """Forward, then the gradients of nodes and of every weight; nothing counted for recomputing."""
    for num_sessions in setting.size([8], [1024], [1024, 4096, 16_384]):
        graph = setting.sessions.graph(num_sessions)
        yield Case(
            op="gated_layers_backward",
            shape=f"B={num_sessions} L=1",
            moved_bytes=5.0 * graph.num_nodes * D * setting.item_bytes + 2 * graph_bytes(graph),
            flop=3.0 * layer_flop(graph.num_nodes, 1),
            prepare=partial(_prepare, setting, graph, 1, True),
            facts={"nodes": graph.num_nodes, "edges": graph.num_edges},
        )


def _prepare(setting: Setting, graph: SessionGraph, num_layers: int, backward: bool) -> Prepared:
    placed = ready_graph(graph, setting)
    weights = placed_weights(setting)
    nodes = setting.random(graph.num_nodes, D)
    upstream = setting.random(graph.num_nodes, D, seed=1)
    if backward:
        nodes.requires_grad_()
        weights = GatedGraphWeights(*[weight.requires_grad_() for weight in weights])

    def gradients(function: Function) -> Callable[..., Any]:
        if not backward:
            return function
        return lambda nodes: torch.autograd.grad(function(nodes), [nodes, *weights], upstream)

    wide_nodes = nodes.detach().double().requires_grad_(backward)
    wide_weights = GatedGraphWeights(*[weight.detach().double().requires_grad_(backward) for weight in weights])
    exact = gated_graph_layers_reference(wide_nodes, placed, wide_weights, num_layers)
    expected = torch.autograd.grad(exact, [wide_nodes, *wide_weights], upstream.double()) if backward else [exact]
    ours = weights if backward else folded(weights)
    return Prepared(
        streamed={"nodes": nodes},
        ways=ways_of(
            setting,
            lambda nodes: gated_graph_layers(nodes, placed, ours, num_layers),
            eager_layers(placed, weights, setting, num_layers),
            compiled=EAGER,
            headline=num_layers == 1 and graph.num_sessions == 1024 and not backward,
            gradients=gradients,
            missing={name: why_no_package(package) for name, package in MISSING.items()},
        ),
        check=against(expected),
    )
