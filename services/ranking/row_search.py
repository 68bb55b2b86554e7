"""The approximate search of a live ranker: an index, what changed since it was built, and its successor."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import structlog

from llmgr_core.ranker import Snapshot
from llmgr_core.ranker.approximate_snapshot import ApproximateSnapshot
from llmgr_core.ranker.row_index import RowIndex
from llmgr_core.settings.ann import AnnSettings

SECONDS_BEFORE_RETRY = 60.0

log = structlog.get_logger(service="ranking")


@dataclass(frozen=True)
class _Built:
    """An index and the items whose rows may have changed since its rows were read; others come after its last one."""

    index: RowIndex
    changed: set[int]


class RowSearch:
    """Searches a table by an index, and exactly where the table is small. ``on`` may be asked by any thread; the others by one.

    Args:
        settings: size of tables, probes, when to build anew.
    """

    def __init__(self, settings: AnnSettings) -> None:
        self._settings = settings
        self._built: _Built | None = None
        self._following: set[int] = set()
        self._building: threading.Thread | None = None
        # Not before ``build``.
        self._retry_at = math.inf
        self._done: RowIndex | None = None
        self._state: tuple[Snapshot, _Built | None, Snapshot] | None = None

    @property
    def building(self) -> bool:
        """Whether an index is being built beside the requests."""
        return self._building is not None and self._building.is_alive()

    def changing(self, indices: Iterable[int]) -> None:
        """Rows of these items are about to change; to be told before they do."""
        changed = set(indices)
        built = self._built
        # Sets that requests read are replaced, not changed.
        if built is not None and not changed <= built.changed:
            self._built = _Built(built.index, built.changed | changed)
        self._following = self._following | changed

    def build(self, snapshot: Snapshot) -> None:
        """Build the index now, where the table is large enough."""
        self._retry_at = 0.0
        if snapshot.num_items >= self._settings.least_items:
            self._following = set()
            self._built = _Built(self._index(snapshot), set())

    def follow(self, snapshot: Snapshot) -> None:
        """Begin to build the index anew, beside the requests, where too much of it is old; take it over when it is done.

        At most once a minute.
        """
        if self._done is not None:
            self._built, self._done = _Built(self._done, self._following), None
        if self.building or time.monotonic() < self._retry_at or snapshot.num_items < self._settings.least_items:
            return
        built = self._built
        if built is not None:
            new = len(built.changed) + snapshot.num_items - built.index.count
            if new <= self._settings.rebuild_share * snapshot.num_items:
                return
        self._following = set()
        self._retry_at = time.monotonic() + SECONDS_BEFORE_RETRY
        self._building = threading.Thread(target=self._build_beside, args=(snapshot,), name="index-builder", daemon=True)
        self._building.start()

    def on(self, snapshot: Snapshot) -> Snapshot:
        """The same state, searched by the index; itself where there is none."""
        built, known = self._built, self._state
        if known is not None and known[0] is snapshot and known[1] is built:
            return known[2]
        found = snapshot
        if built is not None:
            new = np.arange(built.index.count, snapshot.num_items, dtype=np.int64)
            changed = np.array(sorted(one for one in built.changed if one < built.index.count), dtype=np.int64)
            found = ApproximateSnapshot.over(snapshot, built.index, np.concatenate([changed, new]))
        self._state = (snapshot, built, found)
        return found

    def _index(self, snapshot: Snapshot) -> RowIndex:
        started = time.perf_counter()
        index = RowIndex(snapshot.rows, cosine=snapshot.parts.cosine, probes=self._settings.probes)
        seconds = round(time.perf_counter() - started, 3)
        log.info("index_built", items=index.count, cells=index.cells, probes=self._settings.probes, seconds=seconds)
        return index

    def _build_beside(self, snapshot: Snapshot) -> None:
        try:
            self._done = self._index(snapshot)
        except Exception as error:
            # The old index goes on, or exact scans.
            log.error("index_not_built", error=str(error), exc_info=error)
