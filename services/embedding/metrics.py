"""What the embedding server counts beside its calls."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.server.observation import LATENCY_BUCKETS

# What items of a stream usually end with. Their series are there from the start, as zeros: a rate over a series that appears
# with its first item misses that one.
STREAM_ITEM_CODES = ("OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL")


class EmbeddingMetrics:
    """Prometheus metrics; one set per registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = "llmgr_embedding"
        self.unchanged = Counter(f"{name}_unchanged_items", "Items sent again without a change", registry=registry)
        self.known_texts = Counter(f"{name}_known_texts", "Changed items whose text had a vector", registry=registry)
        self.new_texts = Counter(f"{name}_new_texts", "Items whose text went to the language model", registry=registry)
        self.forward_texts = Counter(f"{name}_forward_texts", "Texts the language model has read", registry=registry)
        self.queue_seconds = Histogram(
            f"{name}_queue_seconds", "Waiting for the language model", buckets=LATENCY_BUCKETS, registry=registry
        )
        self.forward_seconds = Histogram(
            f"{name}_forward_seconds", "Time of one round of the model", buckets=LATENCY_BUCKETS, registry=registry
        )
        self.model_faults = Counter(f"{name}_model_faults", "Texts without a usable vector", registry=registry)
        self.queued = Gauge(f"{name}_queued_texts", "Texts waiting for the language model", registry=registry)
        self.refused = Counter(f"{name}_refused_texts", "Texts refused because too many were waiting", registry=registry)
        self.refused_calls = Counter(
            f"{name}_refused_calls", "EmbedItem calls refused because items in work were too large together", registry=registry
        )
        self.dropped = Counter(f"{name}_dropped_texts", "Waiting texts nobody wanted any more", registry=registry)
        self.stream_items = Counter(
            f"{name}_stream_items", "Items of EmbedItems streams, by what their reply says", ["code"], registry=registry
        )
        for code in STREAM_ITEM_CODES:
            self.stream_items.labels(code)
        self.commits = Counter(f"{name}_committed_items", "Items written durably", registry=registry)
        self.failed_commits = Counter(f"{name}_failed_commits", "Items that could not be written", registry=registry)
        self.commit_seconds = Histogram(
            f"{name}_commit_seconds", "Time of one durable write", buckets=LATENCY_BUCKETS, registry=registry
        )
        self.missing = Gauge(
            f"{name}_missing_vectors", "Items that the server still has to embed in the background", registry=registry
        )
        self.filled = Counter(f"{name}_filled_items", "Items embedded in the background", registry=registry)
        self.unfillable = Gauge(
            f"{name}_unfillable_items", "Items that the next encoder gives no usable vector for", registry=registry
        )
        self.pruned = Counter(f"{name}_pruned_records", "Vectors and changes nothing needed any more", registry=registry)
        self.sequence = Gauge(f"{name}_sequence", "Newest change of the store", registry=registry)
        self.damaged = Gauge(f"{name}_damaged_records", "Damaged records met in the store", registry=registry)
