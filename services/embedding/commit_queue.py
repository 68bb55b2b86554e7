"""Group commit: inserts that arrive while the disk is busy share the next durable write."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import grpc

from llmgr_core.store import Delete, Put, StoreWriter, Written
from llmgr_core.store.errors import StoreFullError
from services.embedding.metrics import EmbeddingMetrics
from services.server.errors import RequestError

log = logging.getLogger(__name__)
RETRY_FULL_DISK_S = 1.0

Result = TypeVar("Result")


@dataclass
class _Waiting:
    operation: Put | Delete
    outcome: asyncio.Future[Written]
    taken: bool = False


class CommitQueue:
    """Operations in, durable results out, in the order in which they came.

    Args:
        store: written on one thread of its own, so that a slow disk holds no other request up.
        group: most operations in one transaction.
        metrics: where writes are counted.
    """

    def __init__(self, store: StoreWriter, group: int, metrics: EmbeddingMetrics) -> None:
        self._store, self._group, self._metrics = store, group, metrics
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._committed = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._worker = asyncio.create_task(self._work())

    async def write(self, operation: Put | Delete) -> Written:
        """What came of an operation, once it is on the disk.

        A caller that is cancelled returns only when its operation is on the disk too, or was dropped before the writer took
        it: whoever holds a lock around this call never lets a later operation overtake it.

        Raises:
            RequestError: RESOURCE_EXHAUSTED where the disk is full.
        """
        waiting = _Waiting(operation, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._arrived.set()
        try:
            return await asyncio.shield(waiting.outcome)
        except asyncio.CancelledError:
            if waiting.taken:
                await asyncio.wait([waiting.outcome])
            waiting.outcome.cancel()
            raise

    async def exclusive(self, action: Callable[[], Result]) -> Result:
        """Do something else to the store on the thread that writes it, between two groups of inserts.

        Raises:
            StoreFullError: no space left on the disk.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, action)

    async def next_commit(self, timeout: float) -> None:
        """Wait until something was written, or for ``timeout`` seconds."""
        try:
            await asyncio.wait_for(self._committed.wait(), timeout)
        except TimeoutError:
            return

    async def close(self) -> None:
        """Write what waits, then stop."""
        while self._waiting:
            await self.next_commit(0.1)
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        self._thread.shutdown(wait=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if not self._waiting:
                self._arrived.clear()
                continue
            taken = [self._waiting.popleft() for _ in range(min(self._group, len(self._waiting)))]
            # Nobody waits for it any more, and nobody was told that it is stored.
            group = [waiting for waiting in taken if not waiting.outcome.done()]
            if not group:
                continue
            for waiting in group:
                waiting.taken = True
            started = time.perf_counter()
            try:
                results = await loop.run_in_executor(self._thread, self._store.write, [one.operation for one in group])
            except Exception as error:
                self._fail(group, error)
                continue
            self._metrics.commit_seconds.observe(time.perf_counter() - started)
            self._metrics.commits.inc(len(group))
            for waiting, result in zip(group, results, strict=True):
                if not waiting.outcome.done():
                    waiting.outcome.set_result(result)
            self._metrics.sequence.set(max(result.sequence for result in results))
            self._committed.set()
            self._committed = asyncio.Event()

    def _fail(self, group: list[_Waiting], error: Exception) -> None:
        self._metrics.failed_commits.inc(len(group))
        if isinstance(error, StoreFullError):
            log.error("no space left for the store: %d items were refused", len(group))
            error = RequestError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "no space left on the disk of the embedding store; nothing was stored",
                "STORE_FULL",
                retry_after=RETRY_FULL_DISK_S,
            )
        for waiting in group:
            if not waiting.outcome.done():
                waiting.outcome.set_exception(error)
