"""Which examples are "another shade of a clicked item", and which share of a gain falls on them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llmgr_core.evaluation import PairedBootstrap, Ranks
from llmgr_core.evaluation.comparison import compare_groups
from llmgr_core.evaluation.near_duplicates import groups_by_closeness, nearest_click, share_of_gain
from llmgr_core.sessions import Examples, Sessions

FOUND, MISSED = 1.0, 500.0


def ranks(name: str, *values: float) -> list[Ranks]:
    array = np.array(values, dtype=np.float32)
    return [Ranks(name, array, array)]


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 7), min_size=2, max_size=6), min_size=1, max_size=6), st.integers(0, 255))
def test_the_nearest_click_is_that_of_a_plain_loop(sessions, holes):
    vectors = np.random.default_rng(3).normal(size=(8, 4))
    present = np.array([not holes >> v & 1 for v in range(8)])
    examples = Examples.last_click(Sessions.from_lists(sessions))
    found = nearest_click(examples, vectors, present)
    for value, session in zip(found, sessions, strict=True):
        *prefix, target = session
        cosines = [
            vectors[click] @ vectors[target] / np.linalg.norm(vectors[click]) / np.linalg.norm(vectors[target])
            for click in prefix
            if click != target and present[click] and present[target]
        ]
        assert value == pytest.approx(max(cosines, default=-1.0), abs=1e-5)


def test_groups_part_at_the_thresholds_and_hold_every_example_once():
    groups = groups_by_closeness(np.array([-1.0, 0.79, 0.8, 0.89, 0.9, 1.0]))
    assert {name: np.flatnonzero(member).tolist() for name, member in groups.items()} == {
        "all": [0, 1, 2, 3, 4, 5],
        "other": [0, 1],
        "close": [2, 3],
        "near-duplicate": [4, 5],
    }


def test_an_item_clicked_before_is_no_near_duplicate_of_itself():
    vectors = np.eye(2, dtype=np.float16)
    examples = Examples.last_click(Sessions.from_lists([[0, 0], [1, 0, 0]]))
    assert nearest_click(examples, vectors, np.ones(2, dtype=np.bool_)).tolist() == [-1.0, 0.0]


def test_shares_are_those_worked_out_by_hand():
    """Three new hits on near-duplicates, one elsewhere, none among the close."""
    nearest = np.repeat(np.array([0.95, 0.85, 0.1]), 40)
    groups = groups_by_closeness(nearest)
    before = np.full(120, MISSED)
    after = before.copy()
    after[[0, 1, 2, 100]] = FOUND
    share = share_of_gain(ranks("after", *after), ranks("before", *before), groups, PairedBootstrap(500))
    one = share["masked"]
    assert {group: one[group]["HR@20"]["value"] for group in groups} == pytest.approx(
        {"all": 1.0, "other": 0.25, "close": 0.0, "near-duplicate": 0.75}
    )
    assert one["all"]["NDCG@20"]["low"] == one["all"]["NDCG@20"]["high"] == pytest.approx(1.0)
    assert 0.0 <= one["near-duplicate"]["HR@20"]["low"] < 0.75 < one["near-duplicate"]["HR@20"]["high"] <= 1.0
    compared = compare_groups(
        {"after": ranks("", *after), "before": ranks("", *before)}, groups, "before", PairedBootstrap(100)
    )
    assert compared["examples"] == {"all": 120, "other": 40, "close": 40, "near-duplicate": 40}
    assert compared["differences"]["after"]["masked"]["near-duplicate"]["HR@20"]["mean"] == pytest.approx(3 / 40)


def test_of_no_gain_there_is_no_share():
    groups = groups_by_closeness(np.repeat([0.95, 0.1], 10))
    after, before = np.full(20, MISSED), np.full(20, MISSED)
    after[0], before[19] = FOUND, FOUND
    share = share_of_gain(ranks("after", *after), ranks("before", *before), groups, PairedBootstrap(100))
    assert share["unmasked"]["near-duplicate"]["HR@10"] == {"value": None, "low": None, "high": None}
