"""Attention readout and self-attention block."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from kernels.attention_readout import ReadoutWeights, attention_readout
from kernels.attention_readout.reference import attention_readout_reference
from kernels.benchmark.baselines.session_vectors import attention_padded, padded_nodes, readout_index_add, readout_padded
from kernels.benchmark.cases import Case, Prepared, Setting, against
from kernels.benchmark.ops.gated_graph import D, ready_graph
from kernels.benchmark.ops.projection import placed_readout, readout_bytes, readout_flop
from kernels.benchmark.ways import ways_of
from kernels.session_attention import SessionAttentionWeights, session_attention
from kernels.session_attention.reference import session_attention_reference
from kernels.session_graph import SessionGraph

INNER = 256
EAGER_READOUT, EAGER_ATTENTION = "eager index_add", "eager padded softmax"


def readout_cases(setting: Setting) -> Iterator[Case]:
    """One vector a session."""
    for num_sessions in setting.size([8], [1024], [1024, 4096, 16_384]):
        graph = setting.sessions.graph(num_sessions)
        yield Case(
            op="attention_readout",
            shape=f"B={num_sessions}",
            moved_bytes=(graph.num_nodes + num_sessions) * D * setting.item_bytes + readout_bytes(graph),
            flop=readout_flop(graph),
            prepare=partial(_prepare_readout, setting, graph),
            facts={"nodes": graph.num_nodes},
        )


def attention_cases(setting: Setting) -> Iterator[Case]:
    """One block over the clicks, two heads, feed-forward part of 256."""
    for num_sessions in setting.size([8], [512], [1024, 4096]):
        _, boundaries = setting.sessions.draw(num_sessions)
        offsets = torch.from_numpy(boundaries)
        lengths = offsets.diff().double()
        rows = int(offsets[-1])
        yield Case(
            op="session_attention",
            shape=f"B={num_sessions}",
            moved_bytes=2.0 * rows * D * setting.item_bytes + (4.0 * D * D + 2 * D * INNER) * setting.item_bytes,
            flop=rows * (8.0 * D * D + 4.0 * D * INNER) + 4.0 * D * float(lengths.square().sum()),
            prepare=partial(_prepare_attention, setting, offsets),
            facts={"rows": rows},
        )


def _prepare_readout(setting: Setting, graph: SessionGraph) -> Prepared:
    placed, weights = ready_graph(graph, setting), placed_readout(setting)
    nodes = setting.random(graph.num_nodes, D)
    padded = padded_nodes(placed.node_offsets)
    last, session, clicks = placed.last_node, placed.node_session, placed.node_clicks
    exact = attention_readout_reference(nodes.double(), placed, ReadoutWeights(*[weight.double() for weight in weights]))
    return Prepared(
        streamed={"nodes": nodes},
        ways=ways_of(
            setting,
            lambda nodes: attention_readout(nodes, placed, weights),
            {
                EAGER_READOUT: lambda nodes: readout_index_add(nodes, last, session, clicks, weights),
                "eager padded": lambda nodes: readout_padded(nodes, padded, placed, weights),
            },
            compiled=EAGER_READOUT,
        ),
        check=against([exact]),
    )


def _prepare_attention(setting: Setting, offsets: torch.Tensor) -> Prepared:
    placed = offsets.to(setting.device)
    initial = SessionAttentionWeights.initial(D, INNER, torch.Generator().manual_seed(3))
    # Larger than at the start of training, so that the softmax is not flat.
    weights = SessionAttentionWeights(*[setting.place(weight * (5.0 if weight.ndim == 2 else 1.0)) for weight in initial])
    rows = setting.random(int(offsets[-1]), D)
    padded = padded_nodes(placed)
    wide = SessionAttentionWeights(*[weight.double() for weight in weights])
    return Prepared(
        streamed={"rows": rows},
        ways=ways_of(
            setting,
            lambda rows: session_attention(rows, placed, weights, num_heads=2),
            {
                EAGER_ATTENTION: lambda rows: attention_padded(rows, padded, weights, 2, fused=False),
                "padded, torch's fused attention": lambda rows: attention_padded(rows, padded, weights, 2, fused=True),
            },
            compiled=EAGER_ATTENTION,
        ),
        check=against([session_attention_reference(rows.double(), placed, wide, num_heads=2)]),
    )
