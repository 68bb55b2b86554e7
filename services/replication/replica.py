"""Following a Redis stream into a replica of the store it comes from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from llmgr_core.settings.replication import ReplicationSettings
from llmgr_core.store import StoreError
from llmgr_core.store.change_blocks import ChangeBlock
from llmgr_core.store.place import DATA_NAME
from llmgr_core.store.pruning import Pruning
from llmgr_core.store.records import DamagedRecordError
from llmgr_core.store.replica import DivergedError, ReplicaStore, require_replaceable
from llmgr_core.store.whole_copy import discard_arriving
from services.replication.copy_receiver import CopyReceiver, CopyStoppedError, NoCopyError
from services.replication.messages import DamagedMessageError, ForeignMessageError, unpack_block
from services.replication.metrics import ReplicaMetrics
from services.replication.redis_link import Backoff, Keys, Source, connect, failures, read_source

# Blocks of up to a megabyte that one durable write takes in.
MOST_BLOCKS = 16
WAIT_MS = 500
PRUNE_SECONDS = 24 * 3600.0

log = structlog.get_logger(service="replica")


class Replica:
    """Keeps one directory a copy of the published store: every change in order, once, verified, durable.

    Where it goes on after any stop is what its own store says. A whole copy is fetched where the store is not there yet, the
    stream does not reach back to it, or the source is another one; what stood there is readable, and ranked from, until
    the copy is whole.

    Args:
        path: directory of the replica.
        settings: section [replication].
        metrics: series of this replica.
        on_ready: called once, when there is a store that rankers can open.
        fresh: fetch a whole copy though a replica stands there.

    Raises:
        LlmgrError: a store of its own stands there, another process writes to it, or settings that cannot be used.
    """

    def __init__(
        self,
        path: Path,
        settings: ReplicationSettings,
        metrics: ReplicaMetrics,
        on_ready: Callable[[ReplicaStore], None] = lambda store: None,
        *,
        fresh: bool = False,
    ) -> None:
        self._path, self._settings, self._metrics, self._on_ready = path, settings, metrics, on_ready
        self._keys = Keys(settings.name)
        self._link = connect(settings)
        self._stopped = threading.Event()
        self._failing = False
        self._ready = False
        self._cursor = ""
        self._damaged_at = ""
        self._unreadable: tuple[str, str] | None = None
        self._first_seen: Source | None = None
        self._wanted: str | None = None
        self._pruning: Iterator[None] | None = None
        self._prune_at = time.monotonic() + PRUNE_SECONDS
        path.mkdir(parents=True, exist_ok=True)
        self._store = ReplicaStore(path) if (path / DATA_NAME).is_file() else None
        if self._store is None:
            self._wanted = "first"
        else:
            # Its lock is ours now, so nobody else fetches a copy.
            discard_arriving(path)
            metrics.sequence.set(self._store.position)
        if fresh and self._store is not None:
            self._wanted = "asked"

    def run(self) -> None:
        """Follow until ``stop``."""
        self._announce()
        backoff = Backoff(self._settings.longest_backoff_s)
        pause = 0.0
        while not self._stopped.wait(pause):
            pause = 0.0
            try:
                self.step()
            except CopyStoppedError:
                return
            except (NoCopyError, ForeignMessageError, *failures()) as error:  # type: ignore[misc]
                self._note_failure(error)
                pause = backoff.pause()
                continue
            if self._failing:
                log.info("following_again", sequence=-1 if self._store is None else self._store.position)
            self._failing = False
            self._metrics.connected.set(1)
            backoff.reset()

    def stop(self) -> None:
        """End ``run``, from another thread."""
        self._stopped.set()

    def close(self) -> None:
        """Let go of the store, once ``run`` has ended."""
        if self._store is not None:
            self._store.close()
        self._link.close()

    def step(self) -> None:
        """Take in what is there, or wait a moment for it.

        Raises:
            redis.RedisError, OSError: Redis cannot be reached.
            StoreError: the store cannot be written.
            NoCopyError: a copy is needed, and nobody sends one.
        """
        source = read_source(self._link, self._keys)
        if source is not None:
            self._look_at(source)
        if self._wanted is not None:
            self._fetch_copy(self._wanted)
            return
        store = self._store
        assert store is not None
        self._cursor = self._cursor or f"{store.position}-0"
        wait = 1 if self._pruning is not None else WAIT_MS
        reply = self._link.xread({self._keys.changes: self._cursor}, count=MOST_BLOCKS, block=wait)
        entries = reply[0][1] if reply else []
        if entries:
            self._take(store, entries)
        if source is not None:
            self._metrics.lag.set(max(source.sequence - store.position, 0))
        self._prune(store)

    def _take(self, store: ReplicaStore, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        last = entries[-1][0].decode()
        try:
            blocks = [self._sound(fields) for _, fields in entries]
            new = store.apply(blocks)
        except (DamagedMessageError, DamagedRecordError) as error:
            self._metrics.damaged.inc()
            log.error("damaged_changes", entries=f"{entries[0][0].decode()} to {last}", error=str(error))
            # Once may be the way here; twice is what Redis holds, and only a copy brings these changes.
            if self._damaged_at == self._cursor:
                self._want("damaged")
                self._unreadable = store.epoch, last
            self._damaged_at = self._cursor
            return
        except DivergedError as error:
            log.warning("replica_diverged", reason=error.reason, problem=str(error))
            self._want(error.reason)
            return
        self._cursor = last
        self._metrics.applied.inc(new)
        self._metrics.sequence.set(store.position)

    def _sound(self, fields: dict[bytes, bytes]) -> ChangeBlock:
        block = unpack_block(fields.get(b"block", b""))
        block.require_sound()
        return block

    def _look_at(self, source: Source) -> None:
        """Notice a source that is another one, or that has gone back, once its publisher is known to be alive."""
        first = self._first_seen
        if first is None or first.epoch != source.epoch:
            self._first_seen = source
            return
        if source.beat < first.beat:
            # Redis came back with an older memory, or with none.
            self._first_seen, self._cursor = source, ""
        if source.beat <= first.beat:
            return
        self._metrics.contact.set_to_current_time()
        if self._store is None or self._wanted is not None:
            return
        if source.epoch != self._store.epoch:
            self._want("other_source")
        elif source.sequence < self._store.position:
            self._want("source_went_back")

    def _want(self, reason: str) -> None:
        if self._wanted is None:
            log.warning("copy_wanted", reason=reason, sequence=-1 if self._store is None else self._store.position)
        self._wanted = reason

    def _fetch_copy(self, reason: str) -> None:
        if self._store is None or not self._store.marked:
            require_replaceable(self._path)
        receiver = CopyReceiver(self._link, self._keys, self._path, self._stopped)
        copy = receiver.fetch()
        if self._store is not None:
            self._store.close()
            self._store = None
        try:
            copy.put_in_place()
        finally:
            if (self._path / DATA_NAME).is_file():
                self._store = ReplicaStore(self._path)
        receiver.end()
        assert self._store is not None
        self._wanted, self._cursor, self._damaged_at, self._pruning = None, self._cursor_behind_damage(self._store), "", None
        # The copy may be ahead of what the publisher has said of itself so far: only what it says from now on counts.
        self._first_seen = None
        self._metrics.resyncs.labels(reason).inc()
        self._metrics.sequence.set(self._store.position)
        log.info("copy_in_place", reason=reason, epoch=self._store.epoch, sequence=self._store.position)
        self._announce()

    def _cursor_behind_damage(self, copy: ReplicaStore) -> str:
        """Behind messages of the copy's very sequence that could not be read and that the copy stands for; "" where none are.

        A sequence has several messages where the source was described anew without a change.
        """
        unreadable, self._unreadable = self._unreadable, None
        if unreadable is None:
            return ""
        epoch, last = unreadable
        return last if epoch == copy.epoch and int(last.partition("-")[0]) == copy.position else ""

    def _announce(self) -> None:
        if self._store is not None and not self._ready:
            self._ready = True
            self._on_ready(self._store)

    def _prune(self, store: ReplicaStore) -> None:
        """Now and then drop vectors that no item has any more and old changes, a block between two looks at the stream."""
        if self._pruning is None:
            if time.monotonic() < self._prune_at:
                return
            self._prune_at = time.monotonic() + PRUNE_SECONDS
            self._pruning = Pruning(store.writer, self._settings.keep_changes).blocks()
        if next(self._pruning, self) is self:
            self._pruning = None

    def _note_failure(self, error: Exception) -> None:
        # Redis may come back with another memory: what is known of it is to be seen anew.
        self._first_seen, self._cursor = None, ""
        self._metrics.failures.inc()
        self._metrics.connected.set(0)
        if not self._failing:
            log.error("following_stopped", error=str(error), fatal=isinstance(error, StoreError))
        self._failing = True
