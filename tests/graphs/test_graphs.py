"""Batches of sessions and the loader that makes them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from llmgr_core.graphs import ExampleLoader, SessionBatch
from llmgr_core.sessions import Examples, Sessions


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    return Examples.every_prefix(Sessions.from_lists([rng.integers(0, 30, n).tolist() for n in rng.integers(1, 25, 40)]))


def test_a_batch_says_what_was_clicked():
    sessions = Sessions.from_lists([[3, 5, 3], [], [7, 7]])
    batch = SessionBatch.from_sessions(sessions)
    assert batch.num_sessions == 3
    assert batch.clicks.tolist() == [3, 5, 3, 7, 7]
    assert batch.click_offsets.tolist() == [0, 3, 3, 5]
    assert batch.node_items.tolist() == [3, 5, 7]
    assert batch.click_nodes.tolist() == [0, 1, 0, 2, 2]
    assert torch.equal(batch.node_items[batch.click_nodes], batch.clicks)
    assert batch.graph.last_node.tolist() == [0, -1, 2]
    assert {t.dtype for t in (batch.clicks, batch.click_offsets, batch.node_items, batch.click_nodes)} == {torch.int64}


def test_only_the_last_clicks_stay():
    batch = SessionBatch.from_sessions(Sessions.from_lists([[1, 2, 3, 4], [5], []]), max_clicks=2)
    assert batch.clicks.tolist() == [3, 4, 5]
    assert batch.click_offsets.tolist() == [0, 2, 3, 3]
    with pytest.raises(ValueError, match="max_clicks=0"):
        SessionBatch.from_sessions(Sessions.from_lists([[1]]), max_clicks=0)


def test_the_batch_does_not_share_memory_with_the_sessions():
    sessions = Sessions.from_lists([[1, 2]])
    batch = SessionBatch.from_sessions(sessions)
    batch.clicks[0] = 9
    batch.click_offsets[1] = 1
    assert sessions.items.tolist() == [1, 2]
    assert sessions.offsets.tolist() == [0, 2]


def test_an_epoch_gives_every_example_once(examples):
    loader = ExampleLoader(examples, 32, max_clicks=5, seed=3)
    seen = []
    for batch, targets, places in loader:
        assert batch.num_sessions == len(targets) == len(places)
        assert targets.tolist() == examples.targets[places.numpy()].tolist()
        for number, place in enumerate(places.tolist()):
            begin, end = batch.click_offsets[number : number + 2].tolist()
            assert batch.clicks[begin:end].tolist() == examples.prefix(place)[-5:].tolist()
        seen += places.tolist()
    assert sorted(seen) == list(range(len(examples)))
    assert len(loader) == -(-len(examples) // 32)


def orders(loader, epochs):
    return [[place for _, _, places in loader for place in places.tolist()] for _ in range(epochs)]


def test_epochs_differ_and_the_seed_fixes_them(examples):
    first, second = orders(ExampleLoader(examples, 32, seed=1), 2)
    assert first != second
    assert orders(ExampleLoader(examples, 32, seed=1), 2) == [first, second]
    assert orders(ExampleLoader(examples, 32, seed=2), 1) != [first]
    assert orders(ExampleLoader(examples, 32, shuffle=False), 1) == [list(range(len(examples)))]


@pytest.mark.parametrize("done", [0, 1, 5])
def test_a_loader_goes_on_in_the_middle_of_an_epoch(examples, done):
    whole = ExampleLoader(examples, 32, seed=1)
    expected = [places.tolist() for _ in range(3) for _, _, places in whole]
    interrupted = ExampleLoader(examples, 32, seed=1)
    got = [places.tolist() for _, _, places in interrupted]
    for _, (_, _, places) in zip(range(done), interrupted, strict=False):
        got.append(places.tolist())
    state = json.loads(json.dumps(interrupted.state()))
    resumed = ExampleLoader(examples, 32, seed=1)
    resumed.load_state(state)
    while resumed.epoch < 3:
        got += [places.tolist() for _, _, places in resumed]
    assert got == expected


def test_a_state_of_other_examples_is_refused(examples):
    state = ExampleLoader(examples, 32, seed=1).state()
    for other in (ExampleLoader(examples, 16, seed=1), ExampleLoader(examples, 32, seed=2)):
        with pytest.raises(ValueError, match=r"batch_size=32|seed=1"):
            other.load_state(state)
    with pytest.raises(ValueError, match="no examples"):
        ExampleLoader(examples.select(slice(0, 0)), 32)
    with pytest.raises(ValueError, match="batch_size=0"):
        ExampleLoader(examples, 0)
