"""From the raw input to the files of a data set."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llmgr_core.data.click_log import ClickLog, order_clicks
from llmgr_core.data.core_filter import core_filter
from llmgr_core.data.dataset import EXAMPLE_SETS, write_array, write_examples
from llmgr_core.data.heldout import draw_heldout_items, hold_out
from llmgr_core.data.raw_input import RawInput
from llmgr_core.data.split import Split, given_test, leave_one_out, time_split
from llmgr_core.errors import InputError
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings.data import DataSettings

REPEATS_THAT_MATTER = 0.01


@dataclass(frozen=True)
class Selection:
    """Which items a data set is about.

    Attributes:
        rows: int64 [V], row of the raw catalogue of each item.
        index: int32 [raw items], item index of each row, -1 where it is left out.
    """

    rows: npt.NDArray[np.int64]
    index: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Prepared:
    """Filtered, numbered and split clicks.

    Attributes:
        selection: the items.
        split: training sessions and examples, in item indices.
        heldout_items: bool [V], items never shown in training.
        protocol: every choice made on the way, and the counts that came of it.
    """

    selection: Selection
    split: Split
    heldout_items: npt.NDArray[np.bool_]
    protocol: dict[str, Any]


def split_of(settings: DataSettings, has_test: bool) -> str:
    """The split that "auto" stands for.

    Raises:
        InputError: "given" without a test file, or a test file with another split.
    """
    if settings.split == "given" and not has_test:
        raise InputError(
            "data.split is given, but there is no test file", "name it with --test, or set data.split=leave-one-out"
        )
    if settings.split in ("leave-one-out", "time") and has_test:
        raise InputError(
            f"there is a test file, but data.split is {settings.split}", "leave --test away, or set data.split=given"
        )
    if settings.split != "auto":
        return settings.split
    return "given" if has_test else "leave-one-out"


def filter_and_split(raw: RawInput, settings: DataSettings, seed: int) -> Prepared:
    """Filter the clicks, number the items that remain, split, hold items out.

    Raises:
        InputError: nothing is left to train on.
    """
    facts = raw.facts
    split_name = split_of(settings, facts["has_test"])
    least = 1 if split_name == "given" else 5
    item_clicks = settings.min_item_clicks or least
    session_clicks = settings.min_session_clicks or least
    num_rows = facts["num_items"]
    log = core_filter(order_clicks(raw.owners, raw.items, raw.times), num_rows, item_clicks, session_clicks)
    if len(log.sessions) == 0:
        raise InputError(
            f"no session is left: none has {session_clicks} clicks on items that have {item_clicks} clicks each",
            "lower data.min_item_clicks and data.min_session_clicks",
        )
    test = _raw_test(raw) if split_name == "given" else None
    selection = _select(log, test, num_rows, settings.items)
    log = ClickLog(Sessions(selection.index[log.sessions.items], log.sessions.offsets), log.times)
    if split_name == "leave-one-out":
        split = leave_one_out(log)
    elif split_name == "time":
        split = time_split(log, settings.validation_share, settings.test_share)
    else:
        assert test is not None
        targets = selection.index[test.targets]
        moved = Examples(selection.index[test.items], test.starts, test.ends, targets, test.sessions)
        split = given_test(log, moved, settings.validation_share, seed)
    num_items = len(selection.rows)
    role = np.zeros(num_items, dtype=np.int8)
    if settings.heldout_share > 0:
        role = draw_heldout_items(log.sessions.click_counts(num_items) > 0, settings.heldout_share, seed)
        split = hold_out(split, role)
    repeats = repeat_share(split.train)
    protocol = {
        "split": split_name,
        "min_item_clicks": item_clicks,
        "min_session_clicks": session_clicks,
        "items": settings.items,
        "heldout_share": settings.heldout_share,
        "seed": seed,
        "num_items": num_items,
        "num_sessions": len(log.sessions),
        "num_clicks": len(log.sessions.items),
        "train_sessions": len(split.train),
        "train_clicks": len(split.train.items),
        "train_prefixes": int(np.maximum(split.train.lengths - 1, 0).sum()),
        **{name: len(getattr(split, name)) for name in EXAMPLE_SETS},
        "heldout_items": int((role > 0).sum()),
        "repeat_share": repeats,
        "include_seen": repeats >= REPEATS_THAT_MATTER,
    }
    if split_name == "time":
        protocol |= {"validation_share": settings.validation_share, "test_share": settings.test_share}
    if split_name == "given":
        protocol |= {"validation_share": settings.validation_share}
    return Prepared(selection, split, role > 0, protocol)


def repeat_share(sessions: Sessions) -> float:
    """Share of clicks, first ones of a session apart, on an item that the session holds already."""
    followers = int(np.maximum(sessions.lengths - 1, 0).sum())
    if followers == 0:
        return 0.0
    owners = np.repeat(np.arange(len(sessions), dtype=np.int64), sessions.lengths)
    pairs = np.sort(owners * (int(sessions.items.max()) + 1) + sessions.items)
    return float((pairs[1:] == pairs[:-1]).sum()) / followers


def write_split(directory: Path, prepared: Prepared) -> None:
    """Write sessions, examples, counts and the protocol."""
    split, protocol = prepared.split, prepared.protocol
    write_array(directory, "train/items.npy", split.train.items.astype(np.int32, copy=False))
    write_array(directory, "train/offsets.npy", split.train.offsets)
    write_array(directory, "train/sessions.npy", split.train_sessions.astype(np.int64, copy=False))
    write_array(directory, "evaluation_items.npy", split.evaluation_items.astype(np.int32, copy=False))
    for name in EXAMPLE_SETS:
        write_examples(directory, name, getattr(split, name))
    write_array(directory, "train_counts.npy", split.train.click_counts(protocol["num_items"]).astype(np.int64))
    write_array(directory, "heldout_items.npy", prepared.heldout_items)
    (directory / "protocol.json").write_text(json.dumps(protocol, indent=2) + "\n", encoding="utf-8")


def _raw_test(raw: RawInput) -> Examples:
    lengths = raw.test_lengths
    ends = np.cumsum(lengths, dtype=np.int64)
    return Examples(raw.test_items, ends - lengths, ends, raw.test_targets, np.arange(len(lengths), dtype=np.int64))


def _select(log: ClickLog, test: Examples | None, num_rows: int, which: str) -> Selection:
    wanted = np.ones(num_rows, dtype=np.bool_)
    if which == "clicked":
        wanted = log.sessions.click_counts(num_rows) > 0
        if test is not None:
            wanted[test.items] = True
            wanted[test.targets] = True
    rows = np.flatnonzero(wanted).astype(np.int64)
    index = np.full(num_rows, -1, dtype=np.int32)
    index[rows] = np.arange(len(rows), dtype=np.int32)
    return Selection(rows, index)
