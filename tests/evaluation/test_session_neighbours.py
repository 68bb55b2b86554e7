"""V-SKNN against a plain loop over the published formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llmgr_core.evaluation import evaluate, summarise
from llmgr_core.evaluation.retention import NOT_STUDENTS
from llmgr_core.evaluation.session_neighbours import NEIGHBOURS_TRIED, SessionNeighbourScorer, chosen_settings
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings.sknn import SessionNeighbourSettings

ITEMS = 12
SESSION = st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=7)


def settings(neighbours: int, recent: int = 1000) -> SessionNeighbourSettings:
    return SessionNeighbourSettings(neighbours=neighbours, recent=recent)


def plain(sessions: list[list[int]], prefix: list[int], k: int, n: int, own: int | None) -> list[float]:
    """The formula, one session at a time."""
    weight = {item: (place + 1) / len(prefix) for place, item in enumerate(prefix)}
    norm = math.sqrt(sum(value**2 for value in weight.values()))
    latest = [m for m in reversed(range(len(sessions))) if m != own and set(sessions[m]) & set(prefix)][:n]
    cosines = []
    for m in latest:
        held = set(sessions[m])
        cosines.append((sum(weight.get(item, 0.0) for item in held) / norm / math.sqrt(len(held)), m))
    nearest = sorted(cosines, key=lambda one: (-round(one[0], 12), -one[1]))[:k]
    return [sum(cosine for cosine, m in nearest if item in sessions[m]) for item in range(ITEMS)]


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    st.lists(SESSION, min_size=1, max_size=14),
    st.lists(st.tuples(SESSION, st.integers(0, 15)), min_size=1, max_size=5),
    st.integers(1, 6),
    st.integers(1, 8),
)
def test_scores_are_those_of_a_plain_loop(sessions, asked, k, n):
    scorer = SessionNeighbourScorer(Sessions.from_lists(sessions), ITEMS, settings(k, n))
    prefixes = Sessions.from_lists([[*prefix, 0] for prefix, _ in asked])
    cut = Examples.last_click(prefixes)
    examples = Examples(cut.items, cut.starts, cut.ends, cut.targets, np.array([owner for _, owner in asked]))
    wanted = [plain(sessions, prefix, k, n, owner) for prefix, owner in asked]
    np.testing.assert_allclose(scorer.scores(examples).numpy(), wanted, atol=1e-6)


def test_a_later_click_counts_more_and_a_session_is_not_its_own_neighbour():
    sessions = Sessions.from_lists([[0, 1, 5], [0, 2], [1, 3]])
    examples = Examples.last_click(Sessions.from_lists([[0, 1, 4]]))
    scores = SessionNeighbourScorer(sessions, 6, settings(3)).scores(examples)[0]
    assert scores[3] > scores[2] > 0, "the last click is on item 1"
    assert scores[5] == 0, "session 0 is the one that the example was cut from"
    numbered = SessionNeighbourScorer(sessions, 6, settings(3), np.array([7, 8, 0])).scores(examples)[0]
    assert numbered[5] > 0
    assert numbered[3] == 0, "and now session 2 is"


def test_only_the_latest_sessions_are_asked_and_of_these_only_the_nearest():
    sessions = Sessions.from_lists([[0, 1], [0, 2], [0, 3, 4]])
    examples = Examples.last_click(Sessions.from_lists([[9], [9], [9], [0, 5]]))
    examples = Examples(examples.items, examples.starts, examples.ends, examples.targets, np.array([99]))
    assert SessionNeighbourScorer(sessions, 10, settings(9, 1)).scores(examples)[0].nonzero().flatten().tolist() == [0, 3, 4]
    nearest = SessionNeighbourScorer(sessions, 10, settings(1)).scores(examples)[0]
    assert nearest.nonzero().flatten().tolist() == [0, 2], "shorter is nearer, and of two level ones the later is"


def test_a_prefix_that_nobody_shares_scores_nothing():
    sessions = Sessions.from_lists([[1, 2]])
    examples = Examples.last_click(Sessions.from_lists([[5, 1], [1, 5]]))
    scores = SessionNeighbourScorer(sessions, 6, settings(2), np.array([9])).scores(examples)
    assert torch.equal(scores[0], torch.zeros(6))
    assert scores[1].nonzero().flatten().tolist() == [1, 2]


def test_neighbours_are_chosen_on_validation_alone():
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 40, size=400)
    train = Sessions.from_lists([[(start + step) % 40 for step in range(4)] for start in starts])
    validation = Examples.last_click(Sessions.from_lists([[(start + step) % 40 for step in range(3)] for start in range(40)]))
    numbers = np.arange(400) + 1000
    chosen, found = chosen_settings(settings(0, 300), train, 40, numbers, validation)
    assert set(found) == {str(count) for count in NEIGHBOURS_TRIED}
    assert found[str(chosen.neighbours)] == max(found.values())
    assert chosen.recent == 300
    again = evaluate(SessionNeighbourScorer(train, 40, chosen, numbers), validation)
    assert summarise(again.masked)["NDCG@20"] == found[str(chosen.neighbours)]
    assert chosen_settings(settings(7), train, 40, numbers, validation) == (settings(7), {})
    assert chosen_settings(settings(0), train, 40, numbers, validation.select(slice(0, 0)))[0].neighbours == 500
    with pytest.raises(ValueError, match="choose"):
        SessionNeighbourScorer(train, 40, settings(0))


def test_it_is_no_student_of_the_teacher():
    assert SessionNeighbourScorer.name in NOT_STUDENTS
