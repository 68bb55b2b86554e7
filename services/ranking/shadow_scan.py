"""How much an approximate search finds, measured in place: some rankings are made again, exactly, beside the requests."""

from __future__ import annotations

import queue
import random
import threading
import time
from typing import Any

import numpy as np
import structlog

from llmgr_core.ranker import Ranking, Snapshot
from llmgr_core.ranker.approximate_snapshot import ApproximateSnapshot
from llmgr_core.settings.ann import AnnSettings
from services.ranking.metrics import RankingMetrics

COMPARED = 20

log = structlog.get_logger(service="ranking")


class ShadowScan(threading.Thread):
    """Compares sampled rankings with exact ones of the same state; one at a time, and never so that a request waits.

    Args:
        settings: how many of them.
        metrics: takes the recall.
    """

    def __init__(self, settings: AnnSettings, metrics: RankingMetrics) -> None:
        super().__init__(name="shadow-scan", daemon=True)
        self._settings = settings
        self._metrics = metrics
        self._next_at = 0.0
        self._offered: queue.Queue[tuple[Snapshot, Ranking, tuple[Any, ...]] | None] = queue.Queue(1)
        self._stopped = threading.Event()

    def offer(self, snapshot: Snapshot, ranking: Ranking, asked: tuple[Any, ...]) -> None:
        """A ranking that was made; compared where it is drawn and no other is being compared.

        Args:
            asked: arguments of ``Snapshot.rank``.
        """
        now = time.monotonic()
        if now < self._next_at or random.random() >= self._settings.shadow_share or self._offered.full():
            return
        self._next_at = now + 1.0 / self._settings.shadow_per_second
        try:
            self._offered.put_nowait((snapshot, ranking, asked))
        except queue.Full:
            return

    def run(self) -> None:
        while (offered := self._offered.get()) is not None and not self._stopped.is_set():
            try:
                self._compare(*offered)
            except Exception as error:
                log.error("shadow_scan_failed", error=str(error), exc_info=error)

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped.set()
        if self.is_alive():
            self._offered.put(None)
            self.join()

    def _compare(self, snapshot: Snapshot, ranking: Ranking, asked: tuple[Any, ...]) -> None:
        if isinstance(snapshot, ApproximateSnapshot):
            exact = snapshot.exact.rank(*asked).indices[:COMPARED]
            if len(exact):
                self._metrics.ann_recall.observe(float(np.isin(exact, ranking.indices[:COMPARED]).mean()))
