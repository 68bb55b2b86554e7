"""Session graphs built on the host, from clicks to edges and masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from kernels.benchmark.baselines.session_graph import dictionary_loop, padded_adjacency_loop
from kernels.benchmark.cases import OURS, Case, Deviation, Prepared, Setting, Way
from kernels.benchmark.sessions import Ints
from kernels.session_graph import ClickNodes, SessionGraph, build_session_graph

SAME, OTHER = Deviation(0.0, 0.0), Deviation(float("inf"), float("inf"))


def packing_cases(setting: Setting) -> Iterator[Case]:
    """On the host whatever the device; nodes and edges first, then with the tiles' masks."""
    for num_sessions in setting.size([8], [4096], [512, 4096]):
        items, offsets = setting.sessions.draw(num_sessions)
        graph = build_session_graph(items, offsets).graph
        yield Case(
            op="session_graph",
            shape=f"{num_sessions} sessions, {len(items)} clicks",
            # Items in; node of each click, item, clicks and mask of each node, two ends and a weight of each edge out.
            moved_bytes=16.0 * len(items) + 20.0 * graph.num_nodes + 20.0 * graph.num_edges,
            flop=0.0,
            prepare=partial(_prepare, items, offsets),
            facts={"clicks": len(items), "nodes": graph.num_nodes, "edges": graph.num_edges},
            on_host=True,
        )


def _prepare(items: Ints, offsets: Ints) -> Prepared:
    sessions = [items[begin:end].tolist() for begin, end in pairwise(offsets.tolist())]
    plain = dictionary_loop(sessions)

    def with_masks() -> ClickNodes:
        built = build_session_graph(items, offsets)
        _ = built.graph.tiles
        return built

    def same(built: Any) -> Deviation:
        pairs = [(getattr(built.graph, field.name), getattr(plain.graph, field.name)) for field in fields(SessionGraph)]
        pairs += [(built.click_nodes, plain.click_nodes), (built.node_items, plain.node_items)]
        return SAME if all(torch.equal(one, other) for one, other in pairs) else OTHER

    def same_edges(built: Any) -> Deviation:
        incoming = built[0][:, :, : built[0].shape[1]]
        return SAME if int(np.count_nonzero(incoming)) == plain.graph.num_edges else OTHER

    return Prepared(
        streamed={},
        ways=[
            Way(OURS, with_masks),
            Way("ours, without masks", lambda: build_session_graph(items, offsets)),
            Way("dictionary loop", lambda: dictionary_loop(sessions)),
            Way("padded adjacency loop", lambda: padded_adjacency_loop(sessions), check=same_edges),
        ],
        check=same,
    )
