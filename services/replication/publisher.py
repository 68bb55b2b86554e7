"""Following the change log of a store into a Redis stream."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from llmgr_core.settings.replication import ReplicationSettings
from llmgr_core.store import EmbeddingStore, StoreError
from llmgr_core.store.change_blocks import UNKNOWN_SUM, ChangeBlock, Description, change_sum, read_block
from llmgr_core.store.place import DATA_NAME
from services.replication.copy_sender import CopySender
from services.replication.messages import DamagedMessageError, ForeignMessageError, pack_block, unpack_block
from services.replication.metrics import PublisherMetrics
from services.replication.redis_link import Backoff, Keys, connect, failures, read_source

BEAT_SECONDS = 0.5
FIELD = b"block"
# Takes the lease, or holds it on: both only where nobody else has it. Returns who has it.
LEASE = """
local holder = redis.call('GET', KEYS[1])
if not holder or holder == ARGV[1] then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return ARGV[1] end
return holder
"""

log = structlog.get_logger(service="publisher")


@dataclass(frozen=True)
class _Place:
    """How far the stream goes, and what its last entry says of the store; None where it has none yet."""

    sequence: int
    description: Description | None


class Publisher:
    """Sends every change of a store, in order, to the stream; what was sent is what the stream says, not what is remembered.

    The id of an entry is the sequence of its last change, so that Redis itself refuses to take one twice. Redis that was away,
    lost its memory or went back to an old one is brought up to date from the store's own log.

    Args:
        store_path: the embedding host's store, which is only read.
        settings: section [replication].
        metrics: series of this publisher.

    Raises:
        LlmgrError: no store, or settings that cannot be used.
    """

    def __init__(self, store_path: Path, settings: ReplicationSettings, metrics: PublisherMetrics) -> None:
        self._path, self._settings, self._metrics = store_path, settings, metrics
        self._keys = Keys(settings.name)
        self._link = connect(settings)
        self._holder = secrets.token_hex(8)
        self._store, self._identity = _open(store_path)
        self._copies = CopySender(self._link, self._keys, store_path, settings.max_copies, metrics)
        self._sent: _Place | None = None
        self._number = 0
        self._transaction = -1
        self._beat_at = 0.0
        self._stopped = threading.Event()
        self._failing = False
        metrics.watch(self._lag)

    def run(self) -> None:
        """Publish until ``stop``."""
        backoff = Backoff(self._settings.longest_backoff_s)
        pause = 0.0
        while not self._stopped.wait(pause):
            try:
                self.step()
            except failures() as error:
                self._note_failure(error)
                pause = backoff.pause()
                continue
            if self._failing:
                log.info("publishing_again", sequence=self._store.sequence())
            self._failing = False
            self._metrics.connected.set(1)
            backoff.reset()
            pause = self._settings.poll_ms / 1000

    def facts(self) -> dict[str, str | int]:
        """What is published."""
        return {"epoch": self._store.epoch, "sequence": self._store.sequence()}

    def stop(self) -> None:
        """End ``run``, from another thread."""
        self._stopped.set()

    def close(self) -> None:
        """Let go of store and lease, once ``run`` has ended."""
        self._copies.stop()
        self._store.close()
        try:
            if self._link.get(self._keys.publisher) == self._holder.encode():
                self._link.delete(self._keys.publisher)
            self._link.close()
        except failures():
            return

    def step(self) -> None:
        """Look once at the store and at who wants something.

        Raises:
            redis.RedisError, OSError: Redis cannot be reached, or refuses.
            LlmgrError: another publisher sends another store, or the store cannot be read.
        """
        self._follow_file()
        now = time.monotonic()
        if self._sent is None or now - self._beat_at >= BEAT_SECONDS:
            self._hold_lease()
            if self._sent is None:
                self._sent = self._resume()
            self._beat()
            self._beat_at = now
            self._copies.look()
        transaction = self._store.transaction_id()
        if transaction == self._transaction:
            return
        self._send_all()
        self._transaction = transaction

    def _send_all(self) -> None:
        while not self._stopped.is_set():
            sent = self._sent
            assert sent is not None
            block = read_block(self._store, sent.sequence)
            if block.sequence == sent.sequence and block.description == sent.description:
                return
            self._send(block)

    def _send(self, block: ChangeBlock) -> None:
        import redis

        assert self._sent is not None
        self._number = self._number + 1 if block.sequence == self._sent.sequence else 0
        keep_from = max(block.sequence - self._settings.keep_changes, 0)
        try:
            with self._link.pipeline(transaction=True) as pipeline:
                pipeline.xadd(
                    self._keys.changes,
                    {FIELD: pack_block(block)},
                    id=f"{block.sequence}-{self._number}",
                    minid=f"{keep_from}-0",
                    approximate=False,
                )
                pipeline.hset(self._keys.source, mapping={"epoch": block.epoch, "sequence": self._store.sequence()})
                pipeline.execute()
        except redis.ResponseError as error:
            if "equal or smaller" not in str(error):
                raise
            # It is there already: sent before the connection broke, or by another publisher of this store.
            self._sent = self._resume()
            return
        self._sent = _Place(block.sequence, block.description)
        self._metrics.published.inc(block.changes)
        self._metrics.sequence.set(block.sequence)

    def _resume(self) -> _Place:
        """The end of the stream, if the store goes on from there; else that of a stream begun anew."""
        self._transaction = -1
        entries = self._link.xrevrange(self._keys.changes, count=1)
        if entries:
            entry, fields = entries[0]
            try:
                block = unpack_block(fields[FIELD])
            except (DamagedMessageError, ForeignMessageError, KeyError) as error:
                log.warning("stream_unreadable", error=str(error))
            else:
                if self._continues(block):
                    self._number = int(entry.partition(b"-")[2])
                    self._metrics.sequence.set(block.sequence)
                    return _Place(block.sequence, block.description)
                log.warning("stream_of_another_store", theirs=block.epoch, ours=self._store.epoch, sequence=block.sequence)
            self._metrics.restarts.inc()
        since = max(self._store.sequence() - self._settings.keep_changes, 0)
        with self._link.pipeline(transaction=True) as pipeline:
            pipeline.delete(self._keys.changes)
            pipeline.hset(self._keys.source, mapping={"epoch": self._store.epoch, "sequence": self._store.sequence()})
            pipeline.execute()
        self._number = 0
        log.info("stream_begun", epoch=self._store.epoch, after=since)
        return _Place(since, None)

    def _continues(self, block: ChangeBlock) -> bool:
        if block.epoch != self._store.epoch or block.sequence > self._store.sequence():
            return False
        with self._store.transaction() as transaction:
            own = change_sum(self._store, transaction, block.sequence)
        return UNKNOWN_SUM in (own, block.sequence_sum) or own == block.sequence_sum

    def _beat(self) -> None:
        with self._link.pipeline(transaction=True) as pipeline:
            pipeline.hset(self._keys.source, mapping={"epoch": self._store.epoch, "sequence": self._store.sequence()})
            pipeline.hincrby(self._keys.source, "beat", 1)
            pipeline.execute()

    def _hold_lease(self) -> None:
        holder = self._link.eval(LEASE, 1, self._keys.publisher, self._holder, int(self._settings.lease_s * 1000)).decode()
        if holder == self._holder:
            return
        source = read_source(self._link, self._keys)
        if source is not None and source.epoch != self._store.epoch:
            raise StoreError(
                f"another publisher sends store {source.epoch[:12]} under the name {self._settings.name!r}; "
                f"this one is {self._store.epoch[:12]}",
                "stop it, or give this catalogue a name of its own (replication.name); one that was killed lets go "
                f"{self._settings.lease_s:g} s later",
            )

    def _follow_file(self) -> None:
        """Another file may take the place of the store: compacted, restored, or another store."""
        try:
            identity = _identity(self._path)
        except OSError:
            return
        if identity == self._identity:
            return
        store, self._identity = _open(self._path)
        old, self._store = self._store, store
        old.close()
        self._sent, self._transaction = None, -1
        log.info("store_exchanged", epoch=store.epoch, sequence=store.sequence())

    def _lag(self) -> float:
        sent = self._sent
        try:
            return float("nan") if sent is None else max(self._store.sequence() - sent.sequence, 0)
        except Exception:
            return float("nan")

    def _note_failure(self, error: Exception) -> None:
        self._sent = None
        self._metrics.failures.inc()
        self._metrics.connected.set(0)
        if not self._failing:
            log.error("publishing_stopped", error=str(error))
        self._failing = True


def _open(path: Path) -> tuple[EmbeddingStore, tuple[int, int]]:
    try:
        identity = _identity(path)
    except OSError:
        raise StoreError(f"no embedding store at {path}", "`llmgr embed` makes one, so does the embedding server") from None
    return EmbeddingStore.open(path), identity


def _identity(path: Path) -> tuple[int, int]:
    status = (path / DATA_NAME).stat()
    return status.st_dev, status.st_ino
