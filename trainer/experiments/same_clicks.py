"""Rows may stand on different data sets only where these differ in item text alone."""

from __future__ import annotations

import numpy as np

from llmgr_core.data import Dataset
from llmgr_core.data.dataset import EXAMPLE_SETS
from llmgr_core.errors import LlmgrError
from llmgr_core.sessions import Examples


def require_same_clicks(one: Dataset, other: Dataset, row: str) -> None:
    """Refuse a row whose examples are not those of the rows before it.

    Args:
        one: data of the rows before.
        other: data of the row.
        row: its name.

    Raises:
        LlmgrError: items, training sessions or examples differ.
    """
    alike = one.item_ids == other.item_ids and np.array_equal(one.train.offsets, other.train.offsets)
    alike = alike and np.array_equal(one.train.items, other.train.items)
    for name in EXAMPLE_SETS:
        mine: Examples = getattr(one, name)
        theirs: Examples = getattr(other, name)
        alike = alike and np.array_equal(mine.targets, theirs.targets) and np.array_equal(mine.starts, theirs.starts)
        alike = alike and np.array_equal(mine.ends, theirs.ends) and np.array_equal(mine.items, theirs.items)
    if not alike:
        raise LlmgrError(f"row {row} stands on other clicks than the rows before it", "make two experiments of it")
