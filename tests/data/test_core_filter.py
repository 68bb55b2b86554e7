"""The k-core filter against its definition."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llmgr_core.data.click_log import ClickLog
from llmgr_core.data.core_filter import core_filter
from llmgr_core.sessions import Sessions


def naive_core(lists: list[list[int]], least_item: int, least_session: int) -> list[list[int]]:
    while True:
        counts = Counter(item for one in lists for item in one)
        kept = [[item for item in one if counts[item] >= least_item] for one in lists]
        kept = [one for one in kept if len(one) >= max(least_session, 1)]
        if kept == lists:
            return kept
        lists = kept


@given(st.lists(st.lists(st.integers(0, 8), max_size=6), max_size=25), st.integers(1, 4), st.integers(1, 4))
def test_the_filter_agrees_with_dropping_one_kind_after_the_other(lists: list[list[int]], item: int, session: int) -> None:
    log = core_filter(ClickLog(Sessions.from_lists([one for one in lists if one])), 9, item, session)
    assert [log.sessions[place].tolist() for place in range(len(log.sessions))] == naive_core(lists, item, session)


def test_times_stay_beside_their_clicks() -> None:
    log = ClickLog(Sessions.from_lists([[0, 1, 0], [1, 2]]), np.array([5.0, 6.0, 7.0, 1.0, 2.0]))
    filtered = core_filter(log, 3, 2, 1)
    assert filtered.sessions.items.tolist() == [0, 1, 0, 1]
    assert filtered.times is not None
    assert filtered.times.tolist() == [5.0, 6.0, 7.0, 1.0]


def test_nothing_may_be_left() -> None:
    assert len(core_filter(ClickLog(Sessions.from_lists([[0, 1], [2, 3]])), 4, 2, 2).sessions) == 0
