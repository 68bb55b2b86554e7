"""The transition graph against its definition, written as plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgr_core.errors import ArtefactError
from llmgr_core.sessions import Sessions
from llmgr_core.transitions import TransitionGraph, TransitionSettings

NUM_ITEMS = 9
SESSIONS = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=8), min_size=1, max_size=6)
SETTINGS = st.builds(
    TransitionSettings,
    window=st.integers(1, 4),
    distance_decay=st.sampled_from([0.5, 0.8, 1.0]),
    backward=st.sampled_from([0.0, 0.3, 1.0]),
    source_damping=st.sampled_from([0.0, 0.4, 1.0]),
    target_damping=st.sampled_from([0.0, 0.3]),
    click_decay=st.sampled_from([0.5, 1.0]),
    clicks=st.integers(1, 4),
    neighbours=st.just(0),
)


def by_definition(sessions: list[list[int]], prefix: list[int], knobs: TransitionSettings) -> np.ndarray:
    mass = np.zeros((NUM_ITEMS, NUM_ITEMS))
    clicks = np.zeros(NUM_ITEMS)
    for session in sessions:
        for place, item in enumerate(session):
            clicks[item] += 1
            for later in range(place + 1, min(place + knobs.window, len(session) - 1) + 1):
                other = session[later]
                if other != item:
                    weight = knobs.distance_decay ** (later - place - 1)
                    mass[item, other] += weight
                    mass[other, item] += weight * knobs.backward
    damping = np.maximum(clicks, 1) ** knobs.source_damping
    weights = mass / damping[:, None] / np.maximum(clicks, 1) ** knobs.target_damping
    scores = np.zeros(NUM_ITEMS)
    for before, item in enumerate(reversed(prefix[-knobs.clicks :])):
        scores += knobs.click_decay**before * weights[item]
    return scores


@settings(max_examples=60, deadline=None)
@given(sessions=SESSIONS, prefixes=SESSIONS, knobs=SETTINGS)
def test_scores_and_lookup_are_the_definition(sessions, prefixes, knobs):
    graph = TransitionGraph.build(Sessions.from_lists(sessions), NUM_ITEMS, knobs)
    scores = graph.scores(Sessions.from_lists(prefixes)).numpy()
    for row, prefix in zip(scores, prefixes, strict=True):
        expected = by_definition(sessions, prefix, knobs)
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-7)
        items, values = graph.lookup(prefix)
        sparse = np.zeros(NUM_ITEMS)
        sparse[items] = values
        np.testing.assert_allclose(sparse, expected, rtol=1e-5, atol=1e-7)
        assert (np.diff(items) > 0).all()


def test_pruning_keeps_the_heaviest_neighbours():
    sessions = Sessions.from_lists([[0, 1]] * 3 + [[0, 2]] * 2 + [[0, 3]] * 2 + [[0, 4]])
    full = TransitionGraph.build(sessions, 5, TransitionSettings(backward=0.0))
    kept = full.pruned(2)
    assert kept.lookup([0])[0].tolist() == [1, 2], "ties go to the lower index"
    assert full.pruned(0).num_edges == full.num_edges


def test_a_session_that_the_graph_does_not_know_leads_nowhere():
    graph = TransitionGraph.build(Sessions.from_lists([[0, 1, 2]]), 3, TransitionSettings())
    for clicks in ([], [3, 7], [-1], [2]):
        items, scores = graph.lookup(clicks)
        assert len(items) == len(scores) == (2 if clicks == [2] else 0)
    assert graph.scores(Sessions.from_lists([[]])).abs().sum() == 0


def test_a_graph_of_no_transitions_scores_zero():
    sessions = Sessions.from_lists([[1], [], [2]])
    graph = TransitionGraph.build(sessions, 3, TransitionSettings())
    assert graph.num_edges == 0
    assert graph.scores(Sessions.from_lists([[1, 2]])).tolist() == [[0.0, 0.0, 0.0]]
    assert graph.pruned(5).num_edges == 0


def test_counting_in_blocks_changes_nothing(monkeypatch):
    generator = np.random.default_rng(0)
    sessions = Sessions.from_lists([generator.integers(0, 30, size=size).tolist() for size in generator.integers(0, 12, 200)])
    whole = TransitionGraph.build(sessions, 30, TransitionSettings())
    monkeypatch.setattr("llmgr_core.transitions.counting.PAIRS_AT_ONCE", 500)
    blocks = TransitionGraph.build(sessions, 30, TransitionSettings())
    np.testing.assert_array_equal(whole.neighbours, blocks.neighbours)
    np.testing.assert_allclose(whole.weights, blocks.weights, rtol=1e-6)


@pytest.mark.parametrize("pruned", [False, True])
def test_save_and_load_give_the_same_graph(tmp_path, pruned):
    sessions = Sessions.from_lists([[0, 1, 2, 0], [2, 1]])
    graph = TransitionGraph.build(sessions, 3, TransitionSettings(window=3))
    graph = graph.pruned(1) if pruned else graph
    graph.save(tmp_path)
    again = TransitionGraph.load(tmp_path)
    assert again.settings == graph.settings
    for name in ("indptr", "neighbours", "weights"):
        np.testing.assert_array_equal(getattr(again, name), getattr(graph, name))


def test_a_damaged_file_is_named(tmp_path):
    TransitionGraph.build(Sessions.from_lists([[0, 1]]), 2, TransitionSettings()).save(tmp_path)
    path = tmp_path / "transitions.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ArtefactError, match=r"transitions\.safetensors"):
        TransitionGraph.load(tmp_path)
    with pytest.raises(ArtefactError, match="nowhere"):
        TransitionGraph.load(tmp_path / "nowhere")
