"""One request of a ranker: ids in, top-k out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch.nn import functional

from kernels.attention_readout import ReadoutWeights, attention_readout
from kernels.attention_readout.reference import attention_readout_reference
from kernels.benchmark.baselines.catalogue import matmul_topk_logsumexp
from kernels.benchmark.baselines.gated_graph import gru_cell_index_add, recbole_style
from kernels.benchmark.baselines.session_vectors import readout_index_add
from kernels.benchmark.cases import Case, Prepared, Setting
from kernels.benchmark.ops.catalogue import best_items
from kernels.benchmark.ops.gated_graph import EAGER, D, layer_flop, placed_weights, ready_graph
from kernels.benchmark.ops.projection import placed_readout, readout_flop
from kernels.benchmark.ways import ways_of
from kernels.gated_graph import GatedGraphWeights, gated_graph_layers
from kernels.gated_graph.reference import gated_graph_layers_reference
from kernels.score_topk import score_topk
from kernels.session_graph import ClickNodes, build_session_graph

K = 20


def ranking_cases(setting: Setting) -> Iterator[Case]:
    """One session of the drawn ones: rows of its items, a layer, readout, the best 20 of all items and the log-sum-exp."""
    for num_items in setting.size([300], [12_101], [12_101, 1_000_000]):
        items, offsets = setting.sessions.draw(1)
        clicks = build_session_graph(items % num_items, offsets)
        item = setting.item_bytes
        yield Case(
            op="ranking_path",
            shape=f"B=1 V={num_items:,} {len(items)} clicks",
            moved_bytes=(num_items + clicks.graph.num_nodes + 28 * D) * D * item + K * 12.0,
            flop=layer_flop(clicks.graph.num_nodes, 1) + readout_flop(clicks.graph) + 2.0 * num_items * D,
            prepare=partial(_prepare, setting, clicks, num_items),
        )


def _prepare(setting: Setting, clicks: ClickNodes, num_items: int) -> Prepared:
    graph, ids = ready_graph(clicks.graph, setting), clicks.node_items.to(setting.device)
    weights, readout = placed_weights(setting), placed_readout(setting)
    table = setting.random(num_items, D)
    source, target = graph.edge_source, graph.edge_target

    def ours(table: torch.Tensor) -> tuple[torch.Tensor, ...]:
        nodes = gated_graph_layers(table.index_select(0, ids), graph, weights, 1)
        return score_topk(attention_readout(nodes, graph, readout), table, K)

    def plain(table: torch.Tensor, nodes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        vector = readout_index_add(nodes, graph.last_node, graph.node_session, graph.node_clicks, readout)
        return matmul_topk_logsumexp(vector, table, K)

    def recbole(table: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return plain(table, recbole_style(functional.embedding(ids, table), source, target, weights, 1))

    def gru_cell(table: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return plain(table, gru_cell_index_add(functional.embedding(ids, table), source, target, weights, 1))

    wide = table.double()
    nodes = gated_graph_layers_reference(wide[ids], graph, GatedGraphWeights(*[weight.double() for weight in weights]), 1)
    vector = attention_readout_reference(nodes, graph, ReadoutWeights(*[weight.double() for weight in readout]))
    return Prepared(
        streamed={"table": table},
        ways=ways_of(setting, ours, {EAGER: recbole, "eager GRUCell, index_add": gru_cell}, compiled=EAGER),
        check=best_items(vector, wide, K),
    )
