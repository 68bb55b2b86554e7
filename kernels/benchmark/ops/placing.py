"""The layers and W_p straight into prompts: into a copy of them, in place, and with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from kernels.benchmark.cases import Case, Deviation, Prepared, Setting, against
from kernels.benchmark.ops.gated_graph import EAGER, D, graph_bytes, layer_flop, placed_weights, plain_layers, ready_graph
from kernels.benchmark.ways import ways_of
from kernels.gated_graph import GatedGraphWeights, folded, gated_graph_project_into
from kernels.gated_graph.reference import gated_graph_layers_reference
from kernels.session_graph import SessionGraph

Function = Callable[..., torch.Tensor]
# Of the prompt, before the first node.
FIRST_POSITION = 2


def into_cases(setting: Setting) -> Iterator[Case]:
    """A prompt a session: its nodes' rows from FIRST_POSITION on, in a copy of the prompts."""
    for num_sessions, width in setting.size([(8, 32)], [(256, 2048)], [(1024, 2048), (1024, 4096)]):
        graph = setting.sessions.graph(num_sessions)
        positions = _positions(graph)
        rows = num_sessions * positions
        yield Case(
            op="project_into",
            shape=f"B={num_sessions} L=1 T={positions} D={width}",
            moved_bytes=(graph.num_nodes * D + width * D + (2.0 * rows - graph.num_nodes) * width) * setting.item_bytes
            + graph_bytes(graph),
            flop=_flop(graph, width),
            prepare=partial(_prepare, setting, graph, positions, width, in_place=False),
            facts={"nodes": graph.num_nodes, "rows": rows},
        )


def in_place_cases(setting: Setting) -> Iterator[Case]:
    """The teacher's form: rows of nodes written into prompts that are there already; nothing else of them is touched."""
    for num_sessions, width in setting.size([(8, 32)], [(256, 2048)], [(1024, 2048), (1024, 4096)]):
        graph = setting.sessions.graph(num_sessions)
        positions = _positions(graph)
        yield Case(
            op="project_into_in_place",
            shape=f"B={num_sessions} L=1 T={positions} D={width}",
            moved_bytes=(graph.num_nodes * (D + width) + width * D) * setting.item_bytes + graph_bytes(graph),
            flop=_flop(graph, width),
            prepare=partial(_prepare, setting, graph, positions, width, in_place=True),
            facts={"nodes": graph.num_nodes, "rows": num_sessions * positions},
        )


def backward_cases(setting: Setting) -> Iterator[Case]:
    """Stage 2's form: into a copy of the prompts, then the gradients of nodes, weights, W_p and prompts."""
    for num_sessions, width in setting.size([(8, 32)], [(256, 2048)], [(1024, 2048)]):
        graph = setting.sessions.graph(num_sessions)
        positions = _positions(graph)
        rows, nodes, item = num_sessions * positions, graph.num_nodes, setting.item_bytes
        yield Case(
            op="project_into_backward",
            shape=f"B={num_sessions} L=1 T={positions} D={width}",
            # Prompts read but where a node stands, and written; their gradients read, and written but where a node stands.
            moved_bytes=((4.0 * rows - nodes) * width + 5.0 * nodes * D + 3.0 * width * D) * item + 2 * graph_bytes(graph),
            flop=3.0 * _flop(graph, width),
            prepare=partial(_prepare_backward, setting, graph, positions, width),
            facts={"nodes": nodes, "rows": rows},
        )


def _positions(graph: SessionGraph) -> int:
    return int(graph.node_offsets.diff().max()) + FIRST_POSITION + 2


def _flop(graph: SessionGraph, width: int) -> float:
    return layer_flop(graph.num_nodes, 1) + 2.0 * D * width * graph.num_nodes


def _places(graph: SessionGraph) -> tuple[torch.Tensor, torch.Tensor]:
    """(prompt, position) of each node: a prompt a session."""
    rows = graph.node_session
    nodes = torch.arange(graph.num_nodes, device=graph.device)
    return rows, nodes - graph.node_offsets.index_select(0, rows) + FIRST_POSITION


def _prepare(setting: Setting, graph: SessionGraph, num_positions: int, width: int, in_place: bool) -> Prepared:
    placed, weights = ready_graph(graph, setting), placed_weights(setting)
    # The teacher, which writes in place, has folded its weights.
    layer = folded(weights) if in_place else weights
    nodes = setting.random(graph.num_nodes, D)
    projection = setting.random(width, D, seed=1) * D**-0.5
    out = setting.random(graph.num_sessions, num_positions, width, seed=2)
    rows, positions = _places(placed)
    wide = GatedGraphWeights(*[weight.double() for weight in weights])
    layers = gated_graph_layers_reference(nodes.double(), placed, wide, 1)
    expected = against([out.double().index_put((rows, positions), layers @ projection.double().T)])
    original = out.clone() if in_place else out

    def follow(layers: Function) -> Function:
        put = torch.Tensor.index_put_ if in_place else torch.Tensor.index_put
        return lambda nodes, out: put(out, (rows, positions), layers(nodes) @ projection.T)

    def check(result: torch.Tensor) -> Deviation:
        found = expected(result)
        if in_place:
            # All ways write into the same prompts: what one has written must not stand for another.
            out.copy_(original)
        return found

    return Prepared(
        streamed={"nodes": nodes, "out": out},
        ways=ways_of(
            setting,
            lambda nodes, out: gated_graph_project_into(
                nodes, placed, layer, 1, projection, out, rows, positions, in_place=in_place
            ),
            {name: follow(function) for name, function in plain_layers(placed, weights).items()},
            compiled=EAGER,
        ),
        check=check,
    )


def _prepare_backward(setting: Setting, graph: SessionGraph, num_positions: int, width: int) -> Prepared:
    placed = ready_graph(graph, setting)
    weights = GatedGraphWeights(*[weight.requires_grad_() for weight in placed_weights(setting)])
    nodes = setting.random(graph.num_nodes, D).requires_grad_()
    projection = (setting.random(width, D, seed=1) * D**-0.5).requires_grad_()
    out = setting.random(graph.num_sessions, num_positions, width, seed=2).requires_grad_()
    upstream = setting.random(graph.num_sessions, num_positions, width, seed=3)
    rows, positions = _places(placed)

    def follow(layers: Function) -> Function:
        return lambda nodes, out: out.index_put((rows, positions), layers(nodes) @ projection.T)

    def gradients(function: Function) -> Callable[..., Any]:
        return lambda nodes, out: torch.autograd.grad(function(nodes, out), [nodes, out, projection, *weights], upstream)

    wide = [tensor.detach().double().requires_grad_() for tensor in (nodes, out, projection, *weights)]
    layers = gated_graph_layers_reference(wide[0], placed, GatedGraphWeights(*wide[3:]), 1)
    exact = wide[1].index_put((rows, positions), layers @ wide[2].T)
    return Prepared(
        streamed={"nodes": nodes, "out": out},
        ways=ways_of(
            setting,
            lambda nodes, out: gated_graph_project_into(nodes, placed, weights, 1, projection, out, rows, positions),
            {name: follow(function) for name, function in plain_layers(placed, weights).items()},
            compiled=EAGER,
            gradients=gradients,
        ),
        check=against(torch.autograd.grad(exact, wide, upstream.double())),
    )
