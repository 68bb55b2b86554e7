"""Putting rows into a store as they stood in another one."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from llmgr_core.store.writing import StoreWriter

BLOCK = 4096


def put_rows(store: StoreWriter, database: str, rows: Iterable[tuple[bytes, bytes]]) -> int:
    """Put keys and values into one database, a block and a transaction at a time; returns how many there were.

    Raises:
        StoreFullError: no space left on the disk; the blocks before stay.
    """
    handle, remaining, count = store.database(database), iter(rows), 0
    while block := list(islice(remaining, BLOCK)):

        def put(transaction: Any, block: list[tuple[bytes, bytes]] = block) -> None:
            for key, value in block:
                transaction.put(key, value, db=handle)

        store.transact(put)
        count += len(block)
    return count
