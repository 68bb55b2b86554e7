"""Sessions and the examples cut from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgr_core.sessions import Examples, Sessions

session_lists = st.lists(st.lists(st.integers(0, 20), max_size=7), max_size=8)


@given(session_lists)
def test_sessions_give_back_the_lists_they_were_made_from(lists: list[list[int]]) -> None:
    sessions = Sessions.from_lists(lists)
    assert [session.tolist() for session in (sessions[place] for place in range(len(sessions)))] == lists
    assert sessions.items.dtype == np.int32
    assert sessions.offsets.dtype == np.int64
    assert sessions.click_counts(21).tolist() == [sum(one.count(item) for one in lists) for item in range(21)]


@given(session_lists)
def test_every_prefix_predicts_each_click_but_the_first_from_all_before_it(lists: list[list[int]]) -> None:
    examples = Examples.every_prefix(Sessions.from_lists(lists))
    found = [(examples.prefix(place).tolist(), int(examples.targets[place])) for place in range(len(examples))]
    assert found == [(one[:end], one[end]) for one in lists for end in range(1, len(one))]
    assert examples.sessions.tolist() == [number for number, one in enumerate(lists) for _ in range(1, len(one))]


@given(session_lists)
def test_last_click_predicts_the_end_of_every_session_of_two_or_more(lists: list[list[int]]) -> None:
    examples = Examples.last_click(Sessions.from_lists(lists))
    found = [(examples.prefix(place).tolist(), int(examples.targets[place])) for place in range(len(examples))]
    assert found == [(one[:-1], one[-1]) for one in lists if len(one) >= 2]


@given(session_lists, st.integers(1, 4))
def test_prefixes_keep_the_last_clicks(lists: list[list[int]], most: int) -> None:
    examples = Examples.every_prefix(Sessions.from_lists(lists))
    cut, whole = examples.prefixes(most), examples.prefixes()
    expected = [examples.prefix(place).tolist() for place in range(len(examples))]
    assert [cut[place].tolist() for place in range(len(cut))] == [prefix[-most:] for prefix in expected]
    assert [whole[place].tolist() for place in range(len(whole))] == expected


def test_a_selection_shares_the_click_array() -> None:
    examples = Examples.every_prefix(Sessions.from_lists([[1, 2, 3], [4, 5]]))
    chosen = examples.select(examples.targets == 3)
    assert chosen.items is examples.items
    assert chosen.prefix(0).tolist() == [1, 2]
    assert len(examples.select(slice(0, 0))) == 0


@pytest.mark.parametrize(("limit", "places"), [(0, [0, 1, 2, 3, 4]), (5, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4]), (2, [0, 2])])
def test_examples_are_thinned_out_evenly(limit: int, places: list[int]) -> None:
    examples = Examples.every_prefix(Sessions.from_lists([[1, 2, 3], [4, 5, 6, 7]]))
    assert examples.evenly_spread(limit).targets.tolist() == [examples.targets[place] for place in places]
