"""What the ranking server measures beside the calls themselves."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.contract import ranking_service_pb2 as messages
from services.contract import timing_pb2
from services.observability.versions import Versions
from services.ranking.current_ranker import CurrentRanker

STAGE_BUCKETS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0)
RECALL_BUCKETS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 0.9999, 1.0)
NANOSECONDS = 1e9
SCAN_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
METHODS = tuple(messages.DESCRIPTOR.services_by_name["RankingService"].methods_by_name)


class RankingMetrics:
    """Counters and gauges of one ranking process.

    Attributes:
        queue_seconds: time a request waited for a thread, for `min_sequence` and for its turn to rank.
        rank_seconds: time the ranker took for one session.
        stage_seconds: parts of it, by stage ("encode", "score", "select").
        scan_sessions: rankings that one pass over a large table was for (``serve.joint_scan_items``).
        fallbacks: rankings by popularity, for want of a known click.
        shed: requests refused because too many were admitted already.
        unsent: calls that are open and whose message has not come.
        sequence: newest change of the store that rankings know of.
        items: items that can be ranked.
        followed_at: when the store was last read without an error, in seconds since 1970.
        follow_failures: looks at the store that failed.
        refused_vectors: stored vectors that no row could be made of.
        stuck: 1 while a ranking takes longer than any should.
        ann_recall: share of the exact ranking's items (20 at most) that an approximate one held, for those that were repeated.
        bundle_loads: bundles loaded, by outcome ("served", "refused").
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        prefix = "llmgr_ranking"
        self._registry = registry
        self.queue_seconds = Histogram(
            f"{prefix}_queue_seconds", "Waiting before ranking", buckets=STAGE_BUCKETS, registry=registry
        )
        self.rank_seconds = Histogram(f"{prefix}_rank_seconds", "Ranking one session", buckets=STAGE_BUCKETS, registry=registry)
        self.stage_seconds = Histogram(
            f"{prefix}_stage_seconds", "Parts of ranking one session", ["stage"], buckets=STAGE_BUCKETS, registry=registry
        )
        self._encode, self._score, self._select = (self.stage_seconds.labels(one) for one in ("encode", "score", "select"))
        self.scan_sessions = Histogram(
            f"{prefix}_scan_sessions", "Rankings of one pass over a large table", buckets=SCAN_BUCKETS, registry=registry
        )
        self.fallbacks = Counter(f"{prefix}_fallbacks", "Rankings by popularity", registry=registry)
        self.shed = Counter(f"{prefix}_shed", "Requests refused for overload", ["method"], registry=registry)
        for method in METHODS:
            self.shed.labels(method)
        self.unsent = Gauge(f"{prefix}_calls_unsent", "Open calls whose message has not come", registry=registry)
        self.sequence = Gauge(f"{prefix}_sequence", "Newest change in the rows", registry=registry)
        self.items = Gauge(f"{prefix}_items", "Items that can be ranked", registry=registry)
        self.followed_at = Gauge(
            f"{prefix}_last_follow_timestamp_seconds", "When the store was last read without an error", registry=registry
        )
        self.follow_failures = Counter(f"{prefix}_follow_failures", "Looks at the store that failed", registry=registry)
        self.refused_vectors = Counter(f"{prefix}_refused_vectors", "Vectors that cannot be used", registry=registry)
        self.stuck = Gauge(f"{prefix}_stuck", "Whether a ranking is stuck", registry=registry)
        self.ann_recall = Histogram(
            f"{prefix}_ann_recall", "Share of the exact ranking that was found", buckets=RECALL_BUCKETS, registry=registry
        )
        self.bundle_loads = Counter(f"{prefix}_bundle_loads", "Bundles loaded", ["outcome"], registry=registry)
        for outcome in ("served", "refused"):
            self.bundle_loads.labels(outcome)

    def watch(self, current: CurrentRanker) -> None:
        """Show what ``current`` is whenever the page is read."""
        self.sequence.set_function(lambda: current.sequence)
        self.items.set_function(lambda: current.ranker.snapshot.num_rankable)
        lag = Gauge("llmgr_ranking_sequence_lag", "Changes of the store that rankings do not know of", registry=self._registry)

        def behind() -> float:
            try:
                return current.ranker.lag()
            except Exception:
                # A store that cannot be read has its own counter; the page must still come.
                return math.nan

        lag.set_function(behind)

        def versions() -> dict[str, str]:
            ranker = current.ranker
            return {
                "model_version": ranker.version,
                "encoder_version": ranker.fingerprint,
                "store_epoch": ranker.store_epoch,
            }

        self._registry.register(Versions("ranking", versions))

    def ranked(self, timing: timing_pb2.Timing) -> None:
        """Count one ranking; where one program on a device does all of it, its parts are not known."""
        self.rank_seconds.observe(timing.model_ns / NANOSECONDS)
        if timing.score_ns:
            self._encode.observe(timing.encode_ns / NANOSECONDS)
            self._score.observe(timing.score_ns / NANOSECONDS)
            self._select.observe(timing.select_ns / NANOSECONDS)
