"""What the embedding server does when it has time: missing vectors, the change to a next encoder, pruning."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

from llmgr_core.settings.embed import EmbedSettings
from llmgr_core.store import Encoder, StoreError, StoreFullError, StoreWriter
from llmgr_core.store.pruning import Pruning
from services.embedding.commit_queue import CommitQueue
from services.embedding.insertion import Inserter, ServedEncoder
from services.embedding.metrics import EmbeddingMetrics
from services.server.errors import RequestError

log = logging.getLogger(__name__)
# Items under way at a time: enough to fill a forward, few enough that a stream waits behind little.
AT_ONCE = 64
# Between two looks whether damage was met, and after a full disk.
LOOK_AGAIN_S = 5.0
TRY_AGAIN_S = 600.0
SECONDS_PER_HOUR = 3600.0
DONE = object()
NAMED_ITEMS = 10


class BackgroundWork:
    """Tasks on the event loop that end with the server.

    Args:
        inserter: with all encoders.
        next_encoder: becomes the active one once every live item has a vector of it; None where there is none.
        store: read here, written through ``commits``.
        settings: section [embed].
    """

    def __init__(
        self,
        inserter: Inserter,
        next_encoder: ServedEncoder | None,
        store: StoreWriter,
        commits: CommitQueue,
        settings: EmbedSettings,
        metrics: EmbeddingMetrics,
    ) -> None:
        self._inserter, self._next, self._store, self._commits = inserter, next_encoder, store, commits
        self._settings, self._metrics = settings, metrics
        if next_encoder is not None:
            next_encoder.left_out = set()
        self._without_text: set[str] = set()
        self._failed: set[str] = set()
        self._tasks = [asyncio.create_task(self._keep_filled())]
        if settings.prune_hours:
            self._tasks.append(asyncio.create_task(self._prune()))

    async def close(self) -> None:
        """Stop where it is; what was done is in the store."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_filled(self) -> None:
        while True:
            try:
                every = self._settings.fill_missing or self._next is not None
                await self._fill(self._inserter.active, every=every)
                if self._next is not None and self._next is not self._inserter.active:
                    await self._change_over(self._next)
            except StoreError as error:
                # A full disk, or a store that cannot be read: inserts say the same to their callers.
                log.error("background embedding waits: %s", error.args[0])
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            except Exception:
                # Nobody waits for this task: it would end unheard, and what lacks a vector would stay so.
                log.exception("unexpected error of the background embedding")
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            await self._wait_for_a_reason()

    async def _wait_for_a_reason(self) -> None:
        """Until damage was met, or until it is time to try again what a next encoder could not embed."""
        seen, started = self._store.damaged_count, time.monotonic()
        pending = self._next is not None and self._next is not self._inserter.active
        while self._store.damaged_count == seen:
            await asyncio.sleep(LOOK_AGAIN_S)
            if pending and time.monotonic() - started > TRY_AGAIN_S:
                self._failed.clear()
                return

    async def _fill(self, encoder: ServedEncoder, *, every: bool) -> None:
        """Until no item lacks a vector of this encoder but those that cannot have one.

        Args:
            every: else only items that had one once, or have none of any encoder.

        Raises:
            StoreError: the disk is full, or the store cannot be read.
        """
        while True:
            missing = await asyncio.to_thread(self._store.missing_vectors, encoder.fingerprint, lost=not every)
            waiting = [one for one in missing if one not in self._without_text and one not in self._failed]
            self._metrics.missing.set(len(waiting))
            self._metrics.unfillable.set(len(self._failed))
            if not waiting:
                return
            log.info("embedding %d items in the background with encoder %s", len(waiting), encoder.fingerprint[:12])
            await self._fill_these(waiting, encoder)

    async def _fill_these(self, item_ids: list[str], encoder: ServedEncoder) -> None:
        room = asyncio.Semaphore(AT_ONCE)
        full: list[RequestError] = []

        async def fill(item_id: str) -> None:
            try:
                if await self._inserter.fill(item_id, encoder):
                    self._metrics.filled.inc()
                else:
                    self._without_text.add(item_id)
            except RequestError as error:
                if error.reason == "STORE_FULL":
                    full.append(error)
                else:
                    self._failed.add(item_id)
            except StoreError as error:
                log.error("an item is not embedded again: %s", error.args[0])
                self._failed.add(item_id)
            finally:
                self._metrics.missing.dec()
                room.release()

        async with asyncio.TaskGroup() as group:
            for item_id in item_ids:
                await room.acquire()
                if full:
                    break
                group.create_task(fill(item_id))
        if full:
            raise StoreFullError(full[0].message)

    async def _change_over(self, encoder: ServedEncoder) -> None:
        """Give every item a vector of the next encoder, then make it the active one.

        Inserts go on meanwhile. While one that the encoder failed on may be missing from the last look, another look is taken;
        from the decision on such inserts are refused.
        """
        while True:
            left_out, encoder.left_out = encoder.left_out, set()
            await self._inserter.settled(left_out or ())
            await self._fill(encoder, every=True)
            if self._failed:
                shown = ", ".join(repr(one) for one in sorted(self._failed)[:NAMED_ITEMS])
                log.error(
                    "encoder %s does not become the active one: it gives no usable vector for %d items, for example %s",
                    *(encoder.fingerprint[:12], len(self._failed), shown),
                )
                return
            if not encoder.left_out:
                break
        encoder.required = True
        before = self._inserter.active.fingerprint
        record = Encoder(encoder.fingerprint, encoder.encoder.dimensions, encoder.encoder.name)
        try:
            await self._commits.exclusive(lambda: self._store.activate(record))
        except BaseException:
            encoder.required = False
            raise
        self._inserter.make_active(encoder)
        log.info("encoder %s is the active one now, after %s", encoder.fingerprint[:12], before[:12])

    async def _prune(self) -> None:
        while True:
            await asyncio.sleep(self._settings.prune_hours * SECONDS_PER_HOUR)
            try:
                await self._prune_once()
            except StoreError as error:
                log.error("pruning stopped: %s", error.args[0])
            except Exception:
                # As of the background embedding: this task would end unheard.
                log.exception("unexpected error of the pruning")

    async def _prune_once(self) -> None:
        pruning = Pruning(self._store, self._settings.keep_changes)
        steps = pruning.blocks()
        try:
            # Inserts go on between two steps.
            while await self._commits.exclusive(partial(next, steps, DONE)) is not DONE:
                await asyncio.sleep(0)
        finally:
            report = pruning.report
            self._metrics.pruned.inc(report.vectors + report.changes)
            log.info("pruned %d vectors and %d changes", report.vectors, report.changes)
