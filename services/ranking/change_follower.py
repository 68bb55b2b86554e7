"""The thread that follows the store's change log."""

from __future__ import annotations

import threading
import time

import structlog

from services.ranking.current_ranker import CurrentRanker
from services.ranking.metrics import RankingMetrics

REFUSED_SHOWN = 10
SECONDS_BETWEEN_COMPLAINTS = 10.0
# Rows that changed are held apart until changes pause, and at most this long.
QUIET_SECONDS = 1.0
LONGEST_APART_SECONDS = 10.0

log = structlog.get_logger(service="ranking")


class ChangeFollower(threading.Thread):
    """Looks at the store every ``poll_seconds``; a store that cannot be read leaves the ranker as it is.

    Asking a transaction's id costs a microsecond. ``env.info()`` must not be asked instead: it can show a commit before readers
    see it, and the last change before a pause would be missed.
    """

    def __init__(self, current: CurrentRanker, poll_seconds: float, metrics: RankingMetrics) -> None:
        super().__init__(name="change-follower", daemon=True)
        self._current = current
        self._poll_seconds = poll_seconds
        self._metrics = metrics
        self._stopped = threading.Event()
        self._failing = False
        self._changed_at: float | None = None
        self._shared_at = time.monotonic()

    def run(self) -> None:
        pause = self._poll_seconds
        while not self._stopped.wait(pause):
            pause = self._poll_seconds if self._look() else SECONDS_BETWEEN_COMPLAINTS / 10
            self._share(time.monotonic())

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped.set()
        if self.is_alive():
            self.join()

    def _share(self, now: float) -> None:
        if self._changed_at is None:
            return
        if now - self._changed_at > QUIET_SECONDS or now - self._shared_at > LONGEST_APART_SECONDS:
            self._changed_at, self._shared_at = None, now
            try:
                self._current.share_rows()
            except Exception as error:
                # Memory is all it is about; following must go on.
                log.error("rows_not_shared", error=str(error), exc_info=error)

    def _look(self) -> bool:
        try:
            refused = self._current.follow()
        except Exception as error:
            # Whatever is wrong with the store, rankings from memory go on; who waits for a sequence is told that it is missing.
            self._metrics.follow_failures.inc()
            if not self._failing:
                log.error("store_unreadable", error=str(error), exc_info=error)
            self._failing = True
            return False
        if self._failing:
            log.info("store_readable_again", sequence=self._current.sequence)
            self._failing = False
        if refused is not None and self._changed_at is None:
            self._changed_at = time.monotonic()
        self._metrics.followed_at.set_to_current_time()
        if refused:
            self._metrics.refused_vectors.inc(len(refused))
            log.warning("vectors_refused", items=len(refused), first=refused[:REFUSED_SHOWN])
        return True
