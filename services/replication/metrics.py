"""What a publisher and a replica measure."""

from __future__ import annotations

import math
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

RESYNC_REASONS = ("first", "other_source", "gap", "other_history", "source_went_back", "damaged", "asked")


class PublisherMetrics:
    """Series of one publisher.

    Attributes:
        sequence: newest change in the stream.
        connected: whether Redis answered last time.
        published: changes that went into the stream.
        failures: attempts to reach Redis, or the store, that failed.
        restarts: times the stream was begun anew, for another store or another history.
        copies: whole copies sent, by outcome ("sent", "given_up").
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        prefix = "llmgr_publisher"
        self._registry = registry
        ProcessCollector(registry=registry)
        self.sequence = Gauge(f"{prefix}_sequence", "Newest change in the stream", registry=registry)
        self.connected = Gauge(f"{prefix}_connected", "Whether Redis answered last time", registry=registry)
        self.published = Counter(f"{prefix}_published_changes", "Changes sent", registry=registry)
        self.failures = Counter(f"{prefix}_failures", "Attempts that failed", registry=registry)
        self.restarts = Counter(f"{prefix}_stream_restarts", "Streams begun anew", registry=registry)
        self.copies = Counter(f"{prefix}_copies", "Whole copies", ["outcome"], registry=registry)
        for outcome in ("sent", "given_up"):
            self.copies.labels(outcome)

    def watch(self, lag: Callable[[], float]) -> None:
        """Show how many changes are not in the stream yet."""
        gauge = Gauge("llmgr_publisher_sequence_lag", "Changes that the stream lacks", registry=self._registry)
        gauge.set_function(lag)


class ReplicaMetrics:
    """Series of one replica.

    Attributes:
        sequence: newest change in the replica.
        lag: changes that the source has and the replica does not, as far as is known.
        connected: whether Redis answered last time.
        contact: when the source was last known to be alive, in seconds since 1970.
        applied: changes that were applied.
        failures: attempts to reach Redis, or to write the store, that failed.
        damaged: messages or records that failed their checksum.
        resyncs: whole copies fetched, by why.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        prefix = "llmgr_replica"
        ProcessCollector(registry=registry)
        self.sequence = Gauge(f"{prefix}_sequence", "Newest change in the replica", registry=registry)
        self.lag = Gauge(f"{prefix}_sequence_lag", "Changes that the replica lacks", registry=registry)
        self.lag.set(math.nan)
        self.connected = Gauge(f"{prefix}_connected", "Whether Redis answered last time", registry=registry)
        self.contact = Gauge(
            f"{prefix}_last_contact_timestamp_seconds", "When the source was last known to be alive", registry=registry
        )
        self.applied = Counter(f"{prefix}_applied_changes", "Changes applied", registry=registry)
        self.failures = Counter(f"{prefix}_failures", "Attempts that failed", registry=registry)
        self.damaged = Counter(f"{prefix}_damaged_messages", "Messages that failed a checksum", registry=registry)
        self.resyncs = Counter(f"{prefix}_resyncs", "Whole copies fetched", ["reason"], registry=registry)
        for reason in RESYNC_REASONS:
            self.resyncs.labels(reason)
