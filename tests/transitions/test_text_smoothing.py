"""Transitions shared between text neighbours, against the definition written as plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgr_core.sessions import Sessions
from llmgr_core.transitions import TransitionGraph, TransitionSettings
from llmgr_core.transitions.text_smoothing import smooth_by_text

NUM_ITEMS = 8
SESSIONS = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=6), min_size=1, max_size=6)


def dense(graph: TransitionGraph) -> np.ndarray:
    table = np.zeros((graph.num_items, graph.num_items))
    source = np.repeat(np.arange(graph.num_items), np.diff(graph.indptr))
    table[source, graph.neighbours] = graph.weights
    return table


def by_definition(table: np.ndarray, vectors: np.ndarray, clicks: np.ndarray, knobs: TransitionSettings) -> np.ndarray:
    size = len(table)
    shares = np.zeros((size, size))
    lending = [v for v in range(size) if clicks[v] > 0 and np.abs(vectors[v]).sum() > 0]
    for v in lending:
        cosines = {
            u: vectors[v] @ vectors[u] / (np.linalg.norm(vectors[v]) * np.linalg.norm(vectors[u])) for u in lending if u != v
        }
        nearest = sorted(cosines, key=lambda u: (-cosines[u], u))[: knobs.text_neighbours]
        for u in nearest:
            shares[v, u] = max(cosines[u], 0.0) ** knobs.text_sharpness
        if shares[v].sum() > 0:
            shares[v] /= shares[v].sum()
    smoothed = table.copy()
    for a in range(size):
        for v in range(size):
            rarity = knobs.text_halving / (knobs.text_halving + clicks[v])
            smoothed[a, v] += knobs.text_targets * rarity * sum(shares[v, u] * table[a, u] for u in range(size))
            smoothed[a, v] += knobs.text_sources * sum(shares[a, u] * table[u, v] for u in range(size))
    np.fill_diagonal(smoothed, 0.0)
    return smoothed


@settings(max_examples=60, deadline=None)
@given(
    sessions=SESSIONS, seed=st.integers(0, 1000), neighbours=st.integers(1, 9), without=st.sets(st.integers(0, 7), max_size=8)
)
def test_smoothed_graph_is_the_definition(sessions, seed, neighbours, without):
    knobs = TransitionSettings(neighbours=0, text_neighbours=neighbours, text_targets=2.0, text_sources=0.5, text_halving=3.0)
    log = Sessions.from_lists(sessions)
    graph = TransitionGraph.build(log, NUM_ITEMS, knobs)
    clicks = log.click_counts(NUM_ITEMS)
    vectors = np.random.default_rng(seed).normal(size=(NUM_ITEMS, 5)).astype(np.float32)
    vectors[sorted(without)] = 0.0
    found = dense(smooth_by_text(graph, vectors, clicks))
    np.testing.assert_allclose(found, by_definition(dense(graph), vectors, clicks, knobs), rtol=1e-4, atol=1e-6)


def test_a_rare_item_borrows_more_than_a_frequent_one():
    """Items 2 and 3 have the text of item 1, which follows item 0; 3 was clicked often, elsewhere."""
    log = Sessions.from_lists([[0, 1]] * 5 + [[2]] + [[3]] * 100)
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0.1], [0, 1, 0.1]], dtype=np.float32)
    graph = TransitionGraph.build(log, 4, TransitionSettings(text_neighbours=3))
    table = dense(smooth_by_text(graph, vectors, log.click_counts(4)))
    assert table[0, 2] > 3 * table[0, 3] > 0
    assert dense(graph)[0, 2] == 0


def test_an_item_without_a_click_stays_as_it_was():
    log = Sessions.from_lists([[0, 1]] * 5)
    vectors = np.ones((3, 2), dtype=np.float32)
    smoothed = dense(smooth_by_text(TransitionGraph.build(log, 3, TransitionSettings()), vectors, log.click_counts(3)))
    assert smoothed[:, 2].sum() == smoothed[2].sum() == 0


@pytest.mark.parametrize("kept", [1, 2])
def test_only_the_heaviest_are_kept_and_stand_in_order(kept):
    log = Sessions.from_lists([[0, 1], [0, 1], [0, 1], [0, 2], [0, 2], [0, 3]])
    vectors = np.eye(4, dtype=np.float32)
    graph = smooth_by_text(TransitionGraph.build(log, 4, TransitionSettings(text_kept=kept)), vectors, log.click_counts(4))
    assert graph.neighbours[: graph.indptr[1]].tolist() == [1, 2][:kept]
    assert (np.diff(graph.indptr) <= kept).all()
