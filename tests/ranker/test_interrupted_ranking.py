"""A ranking can be given up between the blocks of the table."""

from __future__ import annotations

import numpy as np
import pytest

from llmgr_core.ranker.item_rows import BLOCK_ROWS, ItemRows


class GivenUpError(Exception):
    """What a caller raises who waits no more."""


@pytest.mark.parametrize("blocks", [1, 4])
def test_what_is_asked_between_blocks_ends_the_work_at_once(blocks: int) -> None:
    rows = ItemRows.from_array(np.ones((blocks * BLOCK_ROWS, 2), dtype=np.float32))
    out = np.full(rows.count, np.nan, dtype=np.float32)
    asked = []

    def give_up_at_the_second() -> None:
        asked.append(None)
        if len(asked) == 2:
            raise GivenUpError

    vector = np.ones(2, dtype=np.float32)
    if blocks == 1:
        rows.products(vector, cosine=False, out=out, between=give_up_at_the_second)
        assert not asked
        return
    with pytest.raises(GivenUpError):
        rows.products(vector, cosine=False, out=out, between=give_up_at_the_second)
    assert np.isfinite(out).sum() == 2 * BLOCK_ROWS


def test_asking_changes_no_number() -> None:
    random = np.random.default_rng(1)
    rows = ItemRows.from_array(random.normal(size=(3 * BLOCK_ROWS + 5, 8)).astype(np.float32))
    vector = random.normal(size=8).astype(np.float32)
    plain, asked = np.empty(rows.count, dtype=np.float32), np.empty(rows.count, dtype=np.float32)
    rows.products(vector, True, out=plain)
    rows.products(vector, True, out=asked, between=lambda: None)
    assert plain.tobytes() == asked.tobytes()
