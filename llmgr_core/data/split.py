"""Cutting a click log into training sessions and evaluation examples."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from llmgr_core.data.click_log import ClickLog
from llmgr_core.errors import InputError
from llmgr_core.sessions import Examples, Sessions


@dataclass(frozen=True)
class Split:
    """Training sessions and evaluation examples.

    Every click is either in a training session, or the target of one example, or (first click of a session that lies in an
    evaluation period) neither. All example sets share one click array.

    Attributes:
        train: sessions to learn from.
        train_sessions: int64 [S], session number of each; ``Examples.sessions`` counts on the same scale.
        validation, test: examples with warm targets.
        heldout_validation, heldout: examples whose target is never seen in training.
    """

    train: Sessions
    train_sessions: npt.NDArray[np.int64]
    validation: Examples
    test: Examples
    heldout_validation: Examples
    heldout: Examples

    @property
    def evaluation_items(self) -> npt.NDArray[np.int32]:
        return self.test.items


def leave_one_out(log: ClickLog) -> Split:
    """Last click of a session = test, second-to-last = validation, the rest = training.

    A session of two clicks has no validation example and one of a single click no example at all: a prefix is never empty,
    and the first click of a session is always a training click.
    """
    items, offsets, lengths = log.sessions.items, log.sessions.offsets, log.sessions.lengths
    train_lengths = np.maximum(lengths - 2, 1)
    place_in_session = np.arange(len(items)) - np.repeat(offsets[:-1], lengths)
    train = Sessions(items[place_in_session < np.repeat(train_lengths, lengths)], _offsets(train_lengths))

    def examples(before_end: int) -> Examples:
        owner = np.flatnonzero(lengths >= before_end + 1).astype(np.int64)
        ends = offsets[owner + 1] - before_end
        return Examples(items, offsets[owner], ends, items[ends], owner)

    nothing = _no_examples(items)
    return Split(train, np.arange(len(lengths)), examples(2), examples(1), nothing, nothing)


def time_split(log: ClickLog, validation_share: float, test_share: float) -> Split:
    """One cut in time for all sessions: training clicks, then validation clicks, then test clicks.

    Every click of an evaluation period that has clicks before it in its session is an example; its prefix is all of them,
    those of earlier periods included.

    Args:
        log: must have timestamps.
        validation_share, test_share: share of all clicks in each period; clicks of equal time are never parted.

    Raises:
        InputError: no timestamps, or a period without clicks.
    """
    if log.times is None:
        raise InputError(
            "data.split is time, but the clicks have no timestamps", "add a timestamp column, or set data.split=leave-one-out"
        )
    items, offsets, lengths, times = log.sessions.items, log.sessions.offsets, log.sessions.lengths, log.times
    ordered = np.sort(times)
    total = len(ordered)
    test_from = ordered[_place(total, 1 - test_share)]
    validation_from = ordered[_place(total, 1 - test_share - validation_share)] if validation_share > 0 else test_from
    period = (times >= validation_from).astype(np.int8) + (times >= test_from)
    counts = np.bincount(period, minlength=3)
    if counts[0] == 0:
        raise InputError(
            f"data.split is time, but no click is older than {float(validation_from)}",
            "the timestamps are too coarse or all alike; set data.split=leave-one-out",
        )
    owners = log.owners
    first = offsets[owners]
    has_prefix = np.arange(total) > first

    def examples(number: int) -> Examples:
        ends = np.flatnonzero((period == number) & has_prefix).astype(np.int64)
        return Examples(items, first[ends], ends, items[ends], owners[ends].astype(np.int64))

    in_train = period == 0
    train_lengths = np.bincount(owners[in_train], minlength=len(lengths))
    number = np.flatnonzero(train_lengths).astype(np.int64)
    train = Sessions(items[in_train], _offsets(train_lengths[number]))
    nothing = _no_examples(items)
    return Split(train, number, examples(1), examples(2), nothing, nothing)


def given_test(log: ClickLog, test: Examples, validation_share: float, seed: int) -> Split:
    """A test file made by others; validation = every prefix of a share of the training sessions.

    Args:
        log: the training file.
        test: examples on a click array of their own.
        validation_share: share of the sessions; the latest ones where times are known, else drawn with ``seed``.
        seed: of that draw.
    """
    sessions = log.sessions
    count = len(sessions)
    chosen = np.zeros(count, dtype=np.bool_)
    taken = min(round(count * validation_share), count - 1)
    if log.times is not None:
        chosen[np.argsort(log.times[sessions.offsets[:-1]], kind="stable")[count - taken :]] = True
    else:
        chosen[np.random.default_rng(seed).permutation(count)[:taken]] = True
    in_validation = np.repeat(chosen, sessions.lengths)
    number = np.arange(count, dtype=np.int64)
    every = Examples.every_prefix(Sessions(sessions.items[in_validation], _offsets(sessions.lengths[chosen])))
    items = np.concatenate([every.items, test.items])
    validation = replace(every, items=items, sessions=number[chosen][every.sessions])
    shift = len(every.items)
    moved = Examples(items, test.starts + shift, test.ends + shift, test.targets, test.sessions + count)
    train = Sessions(sessions.items[~in_validation], _offsets(sessions.lengths[~chosen]))
    nothing = _no_examples(items)
    return Split(train, number[~chosen], validation, moved, nothing, nothing)


def _place(total: int, share: float) -> int:
    return min(max(round(total * share), 0), total - 1)


def _offsets(lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _no_examples(items: npt.NDArray[np.int32]) -> Examples:
    empty = np.zeros(0, dtype=np.int64)
    return Examples(items, empty, empty, np.zeros(0, dtype=np.int32), empty)
