"""One request of a ranker: ids in, top-k out.

On CUDA it is what a ranking server does for a request: the session sent in one copy, one captured graph replayed, the ranking
fetched in one copy. The server's own path, with lists of items to leave out or to add to, and with an encoder of any kind, is
timed by ``benchmarks/graphed_ranking.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial

import torch
from torch.nn import functional

from kernels.attention_readout import ReadoutWeights, attention_readout
from kernels.attention_readout.reference import attention_readout_reference
from kernels.benchmark.baselines.catalogue import matmul_topk_logsumexp
from kernels.benchmark.baselines.session_vectors import readout_index_add
from kernels.benchmark.cases import Case, Prepared, Setting
from kernels.benchmark.ops.catalogue import best_items
from kernels.benchmark.ops.gated_graph import EAGER, D, layer_flop, placed_weights, plain_layers
from kernels.benchmark.ops.projection import placed_readout, readout_flop
from kernels.benchmark.request import RequestMemory, packed_answer, unpacked_answer
from kernels.benchmark.ways import ways_of
from kernels.gated_graph import GatedGraphWeights, folded, gated_graph_layers
from kernels.gated_graph.reference import gated_graph_layers_reference
from kernels.score_topk import score_topk
from kernels.session_graph import ClickNodes, SessionGraph, build_session_graph

K = 20
CAPTURED = ", a request: copy in, one graph (rows, layer, readout, top-k), copy out"
GRAPH = [field.name for field in fields(SessionGraph)]
Ranked = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def ranking_cases(setting: Setting) -> Iterator[Case]:
    """One session of the drawn ones: rows of its items, a layer, readout, the best 20 of all items and the log-sum-exp."""
    as_request = setting.device.type == "cuda"
    for num_items in setting.size([300], [12_101], [12_101, 1_000_000]):
        items, offsets = setting.sessions.draw(1)
        clicks = build_session_graph(items % num_items, offsets)
        item = setting.item_bytes
        yield Case(
            op="ranking_path",
            shape=f"B=1 V={num_items:,} {len(items)} clicks" + (CAPTURED if as_request else ""),
            moved_bytes=(num_items + clicks.graph.num_nodes + 28 * D) * D * item + K * 12.0,
            flop=layer_flop(clicks.graph.num_nodes, 1) + readout_flop(clicks.graph) + 2.0 * num_items * D,
            prepare=partial(prepare, setting, clicks, num_items, as_request),
        )


def request_memory(clicks: ClickNodes, device: torch.device) -> tuple[RequestMemory, SessionGraph]:
    """What the host sends for a session, and the graph as it stands on the device: nothing of it is computed there."""
    graph = clicks.graph
    sent = {name: getattr(graph, name) for name in GRAPH}
    sent |= {"node_session": graph.node_session, "planes": graph.tiles.planes, "degrees": graph.tiles.degrees}
    memory = RequestMemory({"ids": clicks.node_items, **sent}, device)
    placed = SessionGraph(**{name: memory.read[name] for name in GRAPH})
    # The one tile holds any session; where it begins and ends is the graph's, as in the server.
    tiles = replace(graph.tiles.to(device), planes=memory.read["planes"], degrees=memory.read["degrees"])
    placed.__dict__.update(node_session=memory.read["node_session"], tiles=tiles)
    return memory, placed


def prepare(setting: Setting, clicks: ClickNodes, num_items: int, as_request: bool) -> Prepared:
    """The ways; as a request each gives one packed tensor."""
    memory, graph = request_memory(clicks, setting.device)
    ids = memory.read["ids"]
    if not as_request:
        _ = graph.target_offsets, graph.source_offsets
    weights, readout = placed_weights(setting), placed_readout(setting)
    table = setting.random(num_items, D)
    session, last, node_clicks = graph.node_session, graph.last_node, graph.node_clicks
    # A server folds its weights when it loads them.
    layer = folded(weights) if as_request else weights

    def answer(result: Ranked) -> Ranked | torch.Tensor:
        return packed_answer(*result) if as_request else result

    def ours(table: torch.Tensor) -> Ranked | torch.Tensor:
        nodes = gated_graph_layers(table.index_select(0, ids), graph, layer, 1)
        return answer(score_topk(attention_readout(nodes, graph, readout), table, K))

    def plain(layers: Callable[..., torch.Tensor]) -> Callable[[torch.Tensor], Ranked | torch.Tensor]:
        def rank(table: torch.Tensor) -> Ranked | torch.Tensor:
            nodes = layers(functional.embedding(ids, table))
            return answer(matmul_topk_logsumexp(readout_index_add(nodes, last, session, node_clicks, readout), table, K))

        return rank

    wide = table.double()
    nodes = gated_graph_layers_reference(wide[ids], graph, GatedGraphWeights(*[weight.double() for weight in weights]), 1)
    vector = attention_readout_reference(nodes, graph, ReadoutWeights(*[weight.double() for weight in readout]))
    check = best_items(vector, wide, K)
    return Prepared(
        streamed={"table": table},
        ways=ways_of(
            setting,
            ours,
            {name: plain(layers) for name, layers in plain_layers(graph, weights).items()},
            compiled=EAGER,
            fixed=[table, *memory.read.values()] if as_request else (),
        ),
        check=(lambda result: check(unpacked_answer(result, K))) if as_request else check,
        request=memory if as_request else None,
    )
