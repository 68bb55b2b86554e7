"""Sending whole copies of a store to replicas that asked for one, a few parts at a time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import structlog

from llmgr_core.store import EmbeddingStore
from llmgr_core.store.whole_copy import copy_parts
from services.replication.messages import pack_copy
from services.replication.metrics import PublisherMetrics
from services.replication.redis_link import Keys, failures

# Parts of a megabyte that Redis holds for one copy: its memory is not the store's size.
WINDOW_PARTS = 16
PAUSE_SECONDS = 0.02
PARTS_LAPSE_SECONDS = 60

log = structlog.get_logger(service="publisher")


class CopySender:
    """Takes wishes from the list and sends each its copy in a thread of its own.

    Args:
        link: client of Redis.
        keys: of the catalogue.
        store_path: what is copied.
        max_copies: sent at the same time; further wishes wait in the list.
        metrics: counts copies.
    """

    def __init__(self, link: Any, keys: Keys, store_path: Path, max_copies: int, metrics: PublisherMetrics) -> None:
        self._link, self._keys, self._store_path = link, keys, store_path
        self._max_copies, self._metrics = max_copies, metrics
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def look(self) -> None:
        """Begin the copies that were asked for.

        Raises:
            redis.RedisError: Redis cannot be reached.
        """
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        while len(self._threads) < self._max_copies:
            wish = self._link.lpop(self._keys.wanted)
            if wish is None:
                return
            thread = threading.Thread(target=self._send, args=(wish.decode(errors="replace"),), name="copy-sender", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End the copies; who asked for one asks again."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _send(self, wish: str) -> None:
        started = time.monotonic()
        outcome = "given_up"
        try:
            if self._send_parts(wish):
                outcome = "sent"
        except failures() as error:
            log.warning("copy_failed", wish=wish, error=str(error))
        self._metrics.copies.labels(outcome).inc()
        log.info("copy", wish=wish, outcome=outcome, seconds=round(time.monotonic() - started, 3))

    def _send_parts(self, wish: str) -> bool:
        key = self._keys.copy(wish)
        with EmbeddingStore.open(self._store_path) as store:
            for number, part in enumerate(copy_parts(store)):
                if self._stopped.is_set():
                    return False
                while (waiting := self._link.llen(key)) >= WINDOW_PARTS and self._wanted(wish):
                    if self._stopped.wait(PAUSE_SECONDS):
                        return False
                if (waiting >= WINDOW_PARTS or number % WINDOW_PARTS == 0) and not self._wanted(wish):
                    self._link.delete(key)
                    return False
                with self._link.pipeline(transaction=True) as pipeline:
                    pipeline.rpush(key, pack_copy(number, part))
                    pipeline.expire(key, PARTS_LAPSE_SECONDS)
                    pipeline.execute()
        return True

    def _wanted(self, wish: str) -> bool:
        return bool(self._link.exists(self._keys.wish(wish)))
