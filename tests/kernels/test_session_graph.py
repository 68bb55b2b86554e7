"""Session graphs are what a plain loop over each session gives."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from session_cases import ODD_SESSIONS, SESSIONS, build, repeatable

from kernels import session_graph
from kernels.session_graph import build_session_graph


def naive(sessions):
    """Nodes, edges and last nodes by the definition, one session after another."""
    node_items, node_offsets, click_nodes, last, clicks, edges = [], [0], [], [], [], {}
    for session in sessions:
        base = len(node_items)
        nodes = list(dict.fromkeys(session))
        place = {item: base + i for i, item in enumerate(nodes)}
        node_items += nodes
        node_offsets.append(len(node_items))
        click_nodes += [place[item] for item in session]
        clicks += [session.count(item) for item in nodes]
        last.append(place[session[-1]] if session else -1)
        edges.update(Counter((place[a], place[b]) for a, b in pairwise(session)))
    ordered = sorted(edges)
    return node_items, node_offsets, click_nodes, last, clicks, ordered, [edges[e] for e in ordered]


def assert_is_naive(sessions):
    node_items, node_offsets, click_nodes, last, clicks, edges, weights = naive(sessions)
    built = build(sessions)
    graph = built.graph
    assert built.node_items.tolist() == node_items
    assert built.click_nodes.tolist() == click_nodes
    assert graph.node_offsets.tolist() == node_offsets
    assert graph.last_node.tolist() == last
    assert graph.node_clicks.tolist() == clicks
    assert list(zip(graph.edge_source.tolist(), graph.edge_target.tolist(), strict=True)) == edges
    assert graph.edge_weight.tolist() == weights
    assert graph.node_session.tolist() == [s for s, n in enumerate(np.diff(node_offsets)) for _ in range(n)]
    by_target = sorted(edges, key=lambda edge: (edge[1], edge[0]))
    assert [edges[i] for i in graph.target_order.tolist()] == by_target
    for node in range(len(node_items)):
        begin, end = graph.source_offsets[node : node + 2].tolist()
        assert all(edges[i][0] == node for i in range(begin, end))
        begin, end = graph.target_offsets[node : node + 2].tolist()
        assert all(edge[1] == node for edge in by_target[begin:end])
    assert graph.source_offsets[-1] == graph.target_offsets[-1] == len(edges)


@repeatable
@given(SESSIONS)
def test_any_sessions(sessions):
    assert_is_naive(sessions)


@repeatable
@given(st.lists(st.lists(st.integers(2**61, 2**61 + 3), max_size=6), max_size=5))
def test_item_numbers_too_large_to_pack_take_the_other_sort(sessions):
    assert_is_naive(sessions)


@pytest.mark.parametrize("sessions", [[], [[]], [[7]], [[7, 7]], ODD_SESSIONS])
def test_odd_sessions(sessions):
    assert_is_naive(sessions)


@repeatable
@given(SESSIONS, SESSIONS)
def test_a_batch_is_its_parts_side_by_side(left, right):
    together, a, b = build(left + right).graph, build(left).graph, build(right).graph
    shift = a.num_nodes
    assert together.edge_source.tolist() == a.edge_source.tolist() + (b.edge_source + shift).tolist()
    assert together.edge_target.tolist() == a.edge_target.tolist() + (b.edge_target + shift).tolist()
    assert together.edge_weight.tolist() == a.edge_weight.tolist() + b.edge_weight.tolist()


@pytest.mark.parametrize(
    ("items", "offsets"),
    [([1, 2], [0, 1]), ([1, 2], [1, 2]), ([1, 2], [0, 2, 1, 2]), ([1, -2], [0, 2]), ([], [])],
)
def test_what_is_no_batch_is_refused(items, offsets):
    with pytest.raises(ValueError, match=r"offsets|negative"):
        build_session_graph(np.array(items, dtype=np.int64), np.array(offsets, dtype=np.int64))


def test_the_clicks_are_left_as_they_were():
    items, offsets = np.array([4, 1, 4], dtype=np.int64), np.array([0, 3], dtype=np.int64)
    build_session_graph(items, offsets)
    assert items.tolist() == [4, 1, 4]
    assert offsets.tolist() == [0, 3]


def edges_of_planes(tiles):
    """Edges with their weight, read from the masks bit by bit."""
    cells = tiles.planes.numpy().view(np.uint64)[:, :, 0]
    edges = Counter()
    for begin, end in tiles.tile_offsets.tolist():
        for node in range(begin, end):
            for plane, cell in enumerate(cells[:, node].tolist()):
                edges.update({(node, begin + bit): 2**plane for bit in range(64) if cell >> bit & 1})
    for begin, end, first, last, first_cell in tiles.wide_blocks.tolist():
        blocks = -(-(last - first) // 64)
        for node in range(begin, end):
            for block in range(blocks):
                for plane, cell in enumerate(cells[:, first_cell + (node - first) * blocks + block].tolist()):
                    edges.update({(node, first + 64 * block + bit): 2**plane for bit in range(64) if cell >> bit & 1})
    return dict(edges)


@repeatable
@given(st.lists(st.lists(st.integers(0, 120), max_size=150), max_size=12), st.lists(st.integers(0, 3), max_size=30))
def test_tiles_hold_every_edge_and_whole_sessions(sessions, repeating):
    graph = build([*sessions, repeating, list(range(65)), list(range(64)), [i % 200 for i in range(700)]]).graph
    tiles = graph.tiles
    edges = list(zip(graph.edge_source.tolist(), graph.edge_target.tolist(), strict=True))
    weights = [int(weight) for weight in graph.edge_weight.tolist()]
    assert edges_of_planes(tiles) == dict.fromkeys(edges, 1)
    assert edges_of_planes(graph.weighted_tiles) == dict(zip(edges, weights, strict=True))
    for node in range(graph.num_nodes):
        arriving = [w for (_, v), w in zip(edges, weights, strict=True) if v == node]
        leaving = [w for (u, _), w in zip(edges, weights, strict=True) if u == node]
        assert tiles.degrees[node].tolist() == [len(arriving), len(leaving)]
        assert graph.weighted_tiles.degrees[node].tolist() == [sum(arriving), sum(leaving)]
    narrow = set()
    for begin, end in tiles.tile_offsets.tolist():
        assert 0 < end - begin <= 64
        assert begin in graph.node_offsets
        assert end in graph.node_offsets
        assert not narrow & set(range(begin, end))
        narrow |= set(range(begin, end))
    sizes = graph.node_offsets.diff()
    assert narrow == {node for node, s in enumerate(graph.node_session.tolist()) if sizes[s] <= 64}
    rows = [node for begin, end, *_ in tiles.wide_blocks.tolist() for node in range(begin, end)]
    assert rows == [node for node, s in enumerate(graph.node_session.tolist()) if sizes[s] > 64]


@pytest.mark.parametrize("weight", [0.5, 1.5, 0.0, -1.0, float("nan"), 2.0**31])
def test_a_multiplicity_that_is_no_count_is_refused(weight):
    graph = dataclasses.replace(build([[0, 1]]).graph, edge_weight=torch.tensor([weight]))
    with pytest.raises(ValueError, match="whole number"):
        _ = graph.weighted_tiles


def test_what_was_built_travels_with_the_graph():
    graph = build(ODD_SESSIONS).graph
    built = graph.tiles, graph.node_session, graph.target_order
    moved = graph.to("meta")
    for name in ("tiles", "node_session", "target_order"):
        assert name in moved.__dict__
    assert moved.tiles.planes.device.type == "meta"
    assert moved.tiles.planes.shape == built[0].planes.shape
    assert "source_offsets" not in build([[1]]).graph.to("meta").__dict__
    assert graph.to("cpu") is graph


def test_tiles_are_well_filled():
    rng = np.random.default_rng(0)
    graph = build([rng.integers(0, 10_000, n).tolist() for n in rng.integers(3, 21, 1000)]).graph
    assert graph.num_nodes / (64 * graph.tiles.num_tiles) > 0.85


def test_tiles_are_built_on_first_use_only(monkeypatch):
    calls = []
    monkeypatch.setattr(session_graph, "pack_tiles", lambda *a: calls.append(a))
    graph = build([[1, 2]]).graph
    assert calls == []
    _ = graph.tiles, graph.tiles
    assert len(calls) == 1
