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
from llmgr_core.data.vocabulary import Vocabulary
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


def filter_and_split(raw: RawInput, settings: DataSettings, seed: int) -> tuple[Selection, Split, dict[str, Any]]:
    """Filter the clicks, number the items that remain, split, hold items out.

    Returns:
        The items, the split (with item indices) and the protocol: every choice made on the way.

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
    return selection, split, protocol


def repeat_share(sessions: Sessions) -> float:
    """Share of clicks, first ones of a session apart, on an item that the session holds already."""
    followers = int(np.maximum(sessions.lengths - 1, 0).sum())
    if followers == 0:
        return 0.0
    owners = np.repeat(np.arange(len(sessions), dtype=np.int64), sessions.lengths)
    pairs = np.sort(owners * (int(sessions.items.max()) + 1) + sessions.items)
    return float((pairs[1:] == pairs[:-1]).sum()) / followers


def write_split(directory: Path, split: Split, protocol: dict[str, Any]) -> npt.NDArray[np.int64]:
    """Write sessions, examples and counts; returns int64 [V], the training clicks of each item."""
    counts = split.train.click_counts(protocol["num_items"]).astype(np.int64)
    write_array(directory, "train/items.npy", split.train.items.astype(np.int32, copy=False))
    write_array(directory, "train/offsets.npy", split.train.offsets)
    write_array(directory, "train/sessions.npy", split.train_sessions.astype(np.int64, copy=False))
    write_array(directory, "evaluation_items.npy", split.evaluation_items.astype(np.int32, copy=False))
    for name in EXAMPLE_SETS:
        write_examples(directory, name, getattr(split, name))
    write_array(directory, "train_counts.npy", counts)
    (directory / "protocol.json").write_text(json.dumps(protocol, indent=2) + "\n", encoding="utf-8")
    return counts


def write_items(directory: Path, raw: RawInput, selection: Selection, rows_per_group: int = 8192) -> None:
    """Write the records of the chosen items and their brand and category codes, a few thousand rows at a time."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    brands, categories = Vocabulary(), Vocabulary()
    brand_codes, category_codes = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    source = pq.ParquetFile(raw.catalogue)
    first = 0
    with pq.ParquetWriter(directory / "items.parquet", source.schema_arrow, compression="zstd") as writer:
        for batch in source.iter_batches(batch_size=rows_per_group):
            chosen = pa.array(selection.index[first : first + batch.num_rows] >= 0)
            first += batch.num_rows
            table = pa.Table.from_batches([batch]).filter(chosen)
            if table.num_rows == 0:
                continue
            writer.write_table(table)
            brand_codes.append(brands.encode(table.column("brand").combine_chunks()))
            path = pc.list_element(_first_paths(table.column("categories").combine_chunks()), 0)
            category_codes.append(categories.encode(pc.binary_join(path, " > ")))
    write_array(directory, "brand_codes.npy", np.concatenate(brand_codes))
    write_array(directory, "category_codes.npy", np.concatenate(category_codes))


def _first_paths(categories: Any) -> Any:
    # list_element refuses an empty list; null stands for "no category" all the same
    import pyarrow.compute as pc

    return pc.if_else(pc.greater(pc.list_value_length(categories), 0), categories, None)


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
