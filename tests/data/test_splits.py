"""Splits: which click goes where, and what training may know."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmgr_core.data.click_log import ClickLog, order_clicks
from llmgr_core.data.heldout import draw_heldout_items, hold_out
from llmgr_core.data.split import Split, given_test, leave_one_out, time_split
from llmgr_core.errors import InputError
from llmgr_core.sessions import Examples, Sessions

NUM_ITEMS = 12
filled_sessions = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=7), min_size=1, max_size=12)


def clicks_of(split: Split) -> Counter[int]:
    parts = [
        split.train.items,
        split.validation.targets,
        split.test.targets,
        split.heldout_validation.targets,
        split.heldout.targets,
    ]
    return Counter(np.concatenate(parts).tolist())


def pairs(examples: Examples) -> list[tuple[list[int], int, int]]:
    return [
        (examples.prefix(place).tolist(), int(examples.targets[place]), int(examples.sessions[place]))
        for place in range(len(examples))
    ]


@given(filled_sessions)
def test_leave_one_out_parts_every_session_into_training_validation_and_test(lists: list[list[int]]) -> None:
    split = leave_one_out(ClickLog(Sessions.from_lists(lists)))
    assert [split.train[place].tolist() for place in range(len(split.train))] == [one[: max(len(one) - 2, 1)] for one in lists]
    assert pairs(split.test) == [(one[:-1], one[-1], number) for number, one in enumerate(lists) if len(one) > 1]
    assert pairs(split.validation) == [(one[:-2], one[-2], number) for number, one in enumerate(lists) if len(one) > 2]
    assert clicks_of(split) == Counter(item for one in lists for item in one)


@st.composite
def timed_logs(draw: st.DrawFn) -> ClickLog:
    lists = draw(filled_sessions)
    total = sum(map(len, lists))
    times = np.array(draw(st.lists(st.integers(0, 30), min_size=total, max_size=total)), dtype=np.float64)
    sessions = Sessions.from_lists(lists)
    return order_clicks(ClickLog(sessions).owners, sessions.items, times)


@given(timed_logs(), st.sampled_from([0.1, 0.3]), st.sampled_from([0.0, 0.2]))
def test_a_time_split_never_trains_on_what_is_not_older_than_every_evaluated_click(
    log: ClickLog, test_share: float, validation_share: float
) -> None:
    assert log.times is not None
    try:
        split = time_split(log, validation_share, test_share)
    except InputError:
        assume(False)
    places = {name: getattr(split, name).ends for name in ("validation", "test")}
    train_clicks = len(split.train.items)
    newest_training = np.sort(log.times)[train_clicks - 1]
    for ends in places.values():
        assert (log.times[ends] > newest_training).all()
    if len(places["validation"]) and len(places["test"]):
        assert log.times[places["validation"]].max() < log.times[places["test"]].min()
    # only the first click of a session may be neither learned from nor predicted
    firsts = set(log.sessions.offsets[:-1].tolist())
    unseen = len(log.sessions.items) - train_clicks - sum(map(len, places.values()))
    assert 0 <= unseen <= len(firsts)
    for examples in (split.validation, split.test):
        for place in range(len(examples)):
            owner = examples.sessions[place]
            assert examples.starts[place] == log.sessions.offsets[owner]
            assert examples.targets[place] == log.sessions.items[examples.ends[place]]


def test_a_time_split_needs_timestamps_that_differ() -> None:
    sessions = Sessions.from_lists([[0, 1], [2, 3]])
    with pytest.raises(InputError, match="no timestamps"):
        time_split(ClickLog(sessions), 0.1, 0.1)
    with pytest.raises(InputError, match="no click is older"):
        time_split(ClickLog(sessions, np.ones(4)), 0.1, 0.1)


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    log = ClickLog(Sessions.from_lists([[0, 1], [2, 3]]), np.arange(4, dtype=np.float64))
    with pytest.raises(InputError, match="no click is older"):
        time_split(log, 0.9, 0.9)


def test_a_time_split_cuts_where_the_shares_say() -> None:
    sessions = Sessions.from_lists([[item] * 10 for item in range(10)])
    split = time_split(ClickLog(sessions, np.arange(100, dtype=np.float64)), 0.2, 0.1)
    assert len(split.train.items) == 70
    # the first click of each of the three sessions has nothing before it
    assert (len(split.validation), len(split.test)) == (18, 9)


@given(filled_sessions, st.sampled_from([0.0, 0.3, 0.9]), st.integers(0, 3))
def test_a_given_test_file_stays_as_it_is_and_validation_comes_from_whole_training_sessions(
    lists: list[list[int]], share: float, seed: int
) -> None:
    given_examples = Examples.last_click(Sessions.from_lists([[1, 2, 3], [4, 5]]))
    split = given_test(ClickLog(Sessions.from_lists(lists)), given_examples, share, seed)
    assert [one[:2] for one in pairs(split.test)] == [([1, 2], 3), ([4], 5)]
    taken = set(range(len(lists))) - set(split.train_sessions.tolist())
    assert len(taken) <= round(share * len(lists))
    assert [split.train[place].tolist() for place in range(len(split.train))] == [lists[n] for n in split.train_sessions]
    assert pairs(split.validation) == [(lists[n][:e], lists[n][e], n) for n in sorted(taken) for e in range(1, len(lists[n]))]


def test_with_times_the_latest_sessions_are_validation() -> None:
    log = ClickLog(Sessions.from_lists([[0, 1], [2, 3], [4, 5]]), np.array([9.0, 9.5, 1.0, 2.0, 3.0, 4.0]))
    split = given_test(log, Examples.last_click(Sessions.from_lists([[1, 2]])), 0.34, seed=1)
    assert split.train_sessions.tolist() == [1, 2]


@given(filled_sessions, st.sampled_from([0.2, 0.5]), st.integers(0, 5))
def test_held_out_items_are_in_no_training_session_and_in_no_prefix(lists: list[list[int]], share: float, seed: int) -> None:
    log = ClickLog(Sessions.from_lists(lists))
    role = draw_heldout_items(log.sessions.click_counts(NUM_ITEMS) > 0, share, seed)
    split = hold_out(leave_one_out(log), role)
    cold = set(np.flatnonzero(role).tolist())
    assert not cold & set(split.train.items.tolist())
    for examples in (split.validation, split.test, split.heldout_validation, split.heldout):
        for prefix, target, session in pairs(examples):
            assert prefix
            assert not cold & set(prefix)
            # what remains of a session's clicks, in their order
            warm = [item for item in lists[session] if item not in cold]
            assert prefix == warm[: len(prefix)]
            assert target in lists[session]
    assert set(role[split.heldout_validation.targets].tolist()) <= {1}
    assert set(role[split.heldout.targets].tolist()) <= {2}
    assert not role[split.validation.targets].any()
    assert not role[split.test.targets].any()
    warm_train = [[i for i in one[: max(len(one) - 2, 1)] if i not in cold] for one in lists]
    assert [split.train[p].tolist() for p in range(len(split.train))] == [one for one in warm_train if one]
    assert split.train_sessions.tolist() == [number for number, one in enumerate(warm_train) if one]


def test_half_of_the_held_out_items_are_for_validation() -> None:
    role = draw_heldout_items(np.ones(100, dtype=np.bool_), 0.2, seed=3)
    assert Counter(role.tolist()) == {0: 80, 1: 10, 2: 10}
    assert (role == draw_heldout_items(np.ones(100, dtype=np.bool_), 0.2, seed=3)).all()
    assert (role != draw_heldout_items(np.ones(100, dtype=np.bool_), 0.2, seed=4)).any()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30), st.integers(0, 9)), min_size=1, max_size=40))
def test_loose_clicks_are_grouped_by_session_and_ordered_by_time(rows: list[tuple[int, int, int]]) -> None:
    owners = np.array([row[0] for row in rows], dtype=np.int32)
    items = np.array([row[1] for row in rows], dtype=np.int32)
    times = np.array([row[2] for row in rows], dtype=np.float64)
    log = order_clicks(owners, items, times)
    expected = [
        [row[1] for row in sorted((row for row in rows if row[0] == owner), key=lambda row: row[2])]
        for owner in sorted(set(owners.tolist()))
    ]
    assert [log.sessions[place].tolist() for place in range(len(log.sessions))] == expected
    arrival = order_clicks(owners, items, None)
    assert [arrival.sessions[place].tolist() for place in range(len(arrival.sessions))] == [
        [row[1] for row in rows if row[0] == owner] for owner in sorted(set(owners.tolist()))
    ]
