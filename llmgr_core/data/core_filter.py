"""The k-core filter."""

from __future__ import annotations

import numpy as np

from llmgr_core.data.click_log import ClickLog


def core_filter(log: ClickLog, num_items: int, min_item_clicks: int, min_session_clicks: int) -> ClickLog:
    """The largest part of a log in which every item and every session has enough clicks.

    Dropping an item shortens sessions and dropping a session takes clicks from items, so both are repeated until nothing
    changes. Clicks are counted, not distinct partners: an item clicked twice in a session counts twice.

    Args:
        log: T clicks over items 0 .. V - 1.
        num_items: V.
        min_item_clicks: fewest clicks an item may have.
        min_session_clicks: fewest clicks a session may have.
    """
    while True:
        keep = np.ones(len(log.sessions.items), dtype=np.bool_)
        if min_item_clicks > 1:
            keep &= (log.sessions.click_counts(num_items) >= min_item_clicks)[log.sessions.items]
        if min_session_clicks > 1:
            keep &= np.repeat(log.sessions.lengths >= min_session_clicks, log.sessions.lengths)
        if keep.all():
            return log
        log = log.keep(keep)
