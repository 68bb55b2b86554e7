"""The layers, the readout and W_p: one vector a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from kernels.attention_readout import ReadoutWeights
from kernels.attention_readout.reference import attention_readout_reference
from kernels.benchmark.baselines.session_vectors import readout_index_add
from kernels.benchmark.cases import Case, Prepared, Setting, against
from kernels.benchmark.ops.gated_graph import EAGER, D, graph_bytes, layer_flop, placed_weights, plain_layers, ready_graph
from kernels.benchmark.ways import ways_of
from kernels.gated_graph import GatedGraphWeights, gated_graph_project_pooled
from kernels.gated_graph.reference import gated_graph_layers_reference
from kernels.session_graph import SessionGraph

Function = Callable[..., torch.Tensor]


def pooled_cases(setting: Setting) -> Iterator[Case]:
    """Layers, readout and W_p in one call."""
    for num_sessions, width in setting.size([(8, 32)], [(1024, 2048)], [(1024, 2048), (1024, 4096), (16_384, 4096)]):
        graph = setting.sessions.graph(num_sessions)
        item = setting.item_bytes
        yield Case(
            op="project_pooled",
            shape=f"B={num_sessions} L=1 D={width}",
            moved_bytes=(graph.num_nodes * D + width * D + num_sessions * width) * item
            + graph_bytes(graph)
            + readout_bytes(graph),
            flop=layer_flop(graph.num_nodes, 1) + readout_flop(graph) + 2.0 * D * width * num_sessions,
            prepare=partial(_prepare_pooled, setting, graph, width),
            facts={"nodes": graph.num_nodes},
        )


def readout_bytes(graph: SessionGraph) -> float:
    """What tells a readout its sessions: clicks of a node (4 bytes), end and last click of a session (8 bytes each)."""
    return 4.0 * graph.num_nodes + 16.0 * graph.num_sessions


def readout_flop(graph: SessionGraph) -> float:
    """W_2 and the weighted sum for each node; W_1 and W_3 for each session."""
    return graph.num_nodes * (2.0 * D * D + 4.0 * D) + graph.num_sessions * 6.0 * D * D


def placed_readout(setting: Setting) -> ReadoutWeights:
    """Fresh weights, the same on every run."""
    weights = ReadoutWeights.initial(D, torch.Generator().manual_seed(2))
    return ReadoutWeights(*[setting.place(weight) for weight in weights])


def _prepare_pooled(setting: Setting, graph: SessionGraph, width: int) -> Prepared:
    placed, weights, readout = ready_graph(graph, setting), placed_weights(setting), placed_readout(setting)
    nodes = setting.random(graph.num_nodes, D)
    projection = setting.random(width, D, seed=1) * D**-0.5
    last, session, clicks = placed.last_node, placed.node_session, placed.node_clicks

    def follow(layers: Function) -> Function:
        return lambda nodes: readout_index_add(layers(nodes), last, session, clicks, readout) @ projection.T

    layers = gated_graph_layers_reference(
        nodes.double(), placed, GatedGraphWeights(*[weight.double() for weight in weights]), 1
    )
    vectors = attention_readout_reference(layers, placed, ReadoutWeights(*[weight.double() for weight in readout]))
    return Prepared(
        streamed={"nodes": nodes},
        ways=ways_of(
            setting,
            lambda nodes: gated_graph_project_pooled(nodes, placed, weights, 1, readout, projection),
            {name: follow(function) for name, function in plain_layers(placed, weights).items()},
            compiled=EAGER,
        ),
        check=against([vectors @ projection.double().T]),
    )
