"""The ranker that answers now, and those who wait for it to have seen a change."""

from __future__ import annotations

import threading

import structlog

from llmgr_core.store.errors import StoreError
from services.ranking.live_ranker import LiveRanker

log = structlog.get_logger(service="ranking")


class CurrentRanker:
    """Holds one LiveRanker and can exchange it between two requests.

    A request takes ``ranker`` once and works with that one to its end.
    """

    def __init__(self, ranker: LiveRanker) -> None:
        self._ranker = ranker
        self._news = threading.Condition()
        self._following = threading.Lock()

    @property
    def ranker(self) -> LiveRanker:
        return self._ranker

    @property
    def sequence(self) -> int:
        """Newest change of the store that rankings know of."""
        return self._ranker.snapshot.sequence

    def follow(self) -> list[str] | None:
        """Take in what the store has committed and wake up those who wait for it; see LiveRanker.follow."""
        with self._following:
            refused = self._ranker.follow()
        if refused is not None:
            with self._news:
                self._news.notify_all()
        return refused

    def share_rows(self) -> None:
        """Hold rows that have changed together with the server's other processes; see LiveRanker.share_rows."""
        with self._following:
            self._ranker.share_rows()

    def exchange(self, ranker: LiveRanker, *, whatever_the_store: bool = False) -> LiveRanker:
        """Answer with another ranker from the next request on; returns the old one, which nobody follows any more.

        Args:
            whatever_the_store: also where the store cannot be read, with what the ranker knows.

        Raises:
            StoreError: the store cannot be read; nothing was exchanged.
        """
        with self._following:
            try:
                ranker.follow()
            except StoreError as error:
                if not whatever_the_store:
                    raise
                log.warning("store_not_read", error=error.args[0])
            old, self._ranker = self._ranker, ranker
        with self._news:
            self._news.notify_all()
        return old

    def wait_for(self, sequence: int, seconds: float) -> bool:
        """Wait until rankings know of a change; False where they do not within the time."""
        if self.sequence >= sequence:
            return True
        with self._news:
            return self._news.wait_for(lambda: self.sequence >= sequence, timeout=seconds)
