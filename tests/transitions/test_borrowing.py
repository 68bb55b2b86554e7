"""What items without a training click borrow, against the definition written as plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmgr_core.sessions import Sessions
from llmgr_core.transitions import TransitionGraph, TransitionSettings, borrowing
from llmgr_core.transitions.borrowing import BorrowedTransitions, Loan

CLICKED = 6
CATALOGUE = 8  # items 6 and 7 of the graph were never clicked
LATER = 11  # items 8, 9 and 10 came to the server after training
KNOBS = TransitionSettings(neighbours=0, text_new_targets=0.7, text_new_sources=1.3, clicks=4)


def graph_of(seed: int, knobs: TransitionSettings = KNOBS) -> TransitionGraph:
    rng = np.random.default_rng(seed)
    log = Sessions.from_lists([rng.integers(0, CLICKED, 5).tolist() for _ in range(6)])
    return TransitionGraph.build(log, CATALOGUE, knobs)


def loan_of(rng: np.random.Generator) -> Loan:
    lenders = np.sort(rng.choice(CLICKED, size=rng.integers(0, 4), replace=False)).astype(np.int64)
    shares = rng.random(len(lenders)).astype(np.float32) + 0.1
    return Loan(lenders, shares / max(shares.sum(), 1.0))


def by_definition(graph: TransitionGraph, loans: dict[int, Loan], session: list[int]) -> np.ndarray:
    """t(s, v) of LATER items, from the two formulas."""
    knobs = graph.settings
    weight = np.zeros((LATER, LATER))
    for a in range(CATALOGUE):
        neighbours, values = graph.row(a)
        weight[a, neighbours] = values
    for a, loan in loans.items():
        for u, share in zip(loan.lenders, loan.shares, strict=True):
            weight[a] += knobs.text_new_sources * share * weight[u]
    strength = np.zeros(LATER)
    for back, click in enumerate(reversed(session[-knobs.clicks :])):
        strength += knobs.click_decay**back * weight[click]
    lent = strength.copy()
    for v, loan in loans.items():
        lent[v] = sum(knobs.text_new_targets * share * strength[u] for u, share in zip(loan.lenders, loan.shares, strict=True))
    return lent


def looked_up(transitions: BorrowedTransitions, session: list[int]) -> np.ndarray:
    items, values = transitions.lookup(session)
    assert (np.diff(items) > 0).all()
    table = np.zeros(LATER)
    table[items] = values
    return table


@pytest.mark.parametrize("table_share", [0, 1000], ids=["picked", "by table"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), session=st.lists(st.integers(0, LATER - 1), max_size=7))
def test_lookup_is_the_definition(monkeypatch, table_share, seed, session):
    monkeypatch.setattr(borrowing, "TABLE_SHARE", table_share)
    rng = np.random.default_rng(seed)
    graph, loans = graph_of(seed), {item: loan_of(rng) for item in range(CLICKED, LATER) if rng.random() < 0.8}
    found = looked_up(BorrowedTransitions(graph).with_loans(loans), session)
    np.testing.assert_allclose(found, by_definition(graph, loans, session), rtol=1e-5, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 5))
def test_scores_of_the_catalogue_are_those_of_the_lookup(seed, count):
    rng = np.random.default_rng(seed)
    loans = {item: loan_of(rng) for item in (6, 7, 9) if rng.random() < 0.8}
    transitions = BorrowedTransitions(graph_of(seed)).with_loans(loans)
    sessions = [rng.integers(0, CATALOGUE, rng.integers(0, 6)).tolist() for _ in range(count)]
    table = transitions.scores(Sessions.from_lists(sessions)).numpy()
    for row, session in zip(table, sessions, strict=True):
        np.testing.assert_allclose(row, looked_up(transitions, session)[:CATALOGUE], rtol=1e-5, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_one_after_another_replaced_and_ended_is_as_all_at_once(seed):
    rng = np.random.default_rng(seed)
    last = {item: loan_of(rng) for item in (6, 8, 10)}
    one_by_one = BorrowedTransitions(graph_of(seed))
    for item in (8, 7, 6):
        one_by_one = one_by_one.with_loans({item: loan_of(rng)})
    before = looked_up(one_by_one, [0, 1, 2])
    for item, loan in (*last.items(), (7, None), (9, None)):
        changed = one_by_one.with_loans({item: loan})
        np.testing.assert_array_equal(looked_up(one_by_one, [0, 1, 2]), before)
        one_by_one, before = changed, looked_up(changed, [0, 1, 2])
    at_once = BorrowedTransitions(graph_of(seed)).with_loans(last)
    for name in ("lender", "borrower", "share"):
        np.testing.assert_array_equal(getattr(one_by_one, name), getattr(at_once, name))
    assert sorted(one_by_one.rows) == sorted(at_once.rows) == [6, 8, 10]


@pytest.mark.parametrize("kept", [1, 2])
def test_of_a_borrowed_row_the_heaviest_edges_stay(kept):
    graph = graph_of(3, KNOBS.model_copy(update={"text_kept": kept}))
    loan = Loan(np.array([0, 1, 2]), np.array([0.5, 0.3, 0.2], dtype=np.float32))
    whole = looked_up(BorrowedTransitions(graph_of(3)).with_loans({9: loan}), [9])[:CLICKED]
    found = looked_up(BorrowedTransitions(graph).with_loans({9: loan}), [9])[:CLICKED]
    assert np.flatnonzero(found).tolist() == sorted(np.argsort(-whole, kind="stable")[:kept])
    np.testing.assert_allclose(found[found > 0], whole[found > 0], rtol=1e-6)


def test_without_loans_it_is_the_graph():
    graph = graph_of(1)
    for session in ([0, 1], [5], [], [6, 9]):
        for mine, its in zip(BorrowedTransitions(graph).lookup(session), graph.lookup(session), strict=True):
            np.testing.assert_array_equal(mine, its)
