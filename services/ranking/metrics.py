"""What the ranking server measures beside the calls themselves."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STAGE_BUCKETS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0)


class RankingMetrics:
    """Counters and gauges of one ranking process.

    Attributes:
        queue_seconds: time a request waited for a thread, for `min_sequence` and for its turn to rank.
        rank_seconds: time the ranker took for one session.
        fallbacks: rankings by popularity, for want of a known click.
        shed: requests refused because too many were admitted already.
        sequence: newest change of the store that rankings know of.
        items: items that can be ranked.
        follow_failures: looks at the store that failed.
        refused_vectors: stored vectors that no row could be made of.
        bundle_loads: bundles loaded, by outcome ("served", "refused").
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        prefix = "llmgr_ranking"
        self.queue_seconds = Histogram(
            f"{prefix}_queue_seconds", "Waiting before ranking", buckets=STAGE_BUCKETS, registry=registry
        )
        self.rank_seconds = Histogram(f"{prefix}_rank_seconds", "Ranking one session", buckets=STAGE_BUCKETS, registry=registry)
        self.fallbacks = Counter(f"{prefix}_fallbacks", "Rankings by popularity", registry=registry)
        self.shed = Counter(f"{prefix}_shed", "Requests refused for overload", ["method"], registry=registry)
        self.sequence = Gauge(f"{prefix}_sequence", "Newest change in the rows", registry=registry)
        self.items = Gauge(f"{prefix}_items", "Items that can be ranked", registry=registry)
        self.follow_failures = Counter(f"{prefix}_follow_failures", "Looks at the store that failed", registry=registry)
        self.refused_vectors = Counter(f"{prefix}_refused_vectors", "Vectors that cannot be used", registry=registry)
        self.bundle_loads = Counter(f"{prefix}_bundle_loads", "Bundles loaded", ["outcome"], registry=registry)
