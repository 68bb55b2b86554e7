"""What the Grafana dashboard shows: panels, and the PromQL of each."""

from __future__ import annotations

from dataclasses import dataclass

WINDOW = "$__rate_interval"
HERE = 'instance=~"$instance"'


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        title: what it shows.
        unit: Grafana's name of the unit.
        queries: PromQL by legend.
        text: what it tells an operator.
        kind: Grafana's name of the picture.
    """

    title: str
    unit: str
    queries: dict[str, str]
    text: str
    kind: str = "timeseries"


def rate(metric: str, by: str = "", having: str = "") -> str:
    """Sum of rates a second, kept apart by labels."""
    chosen = ", ".join(part for part in (HERE, having) if part)
    return f"sum{f' by ({by}) ' if by else ''}(rate({metric}{{{chosen}}}[{WINDOW}]))"


def quantile(q: float, histogram: str, by: str = "") -> str:
    """A quantile over all instances and workers, in seconds."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', labels)})"


def gauge(metric: str) -> str:
    """A value as it is, of each instance and worker."""
    return f"{metric}{{{HERE}}}"


def _quantiles(histogram: str) -> dict[str, str]:
    return {f"p{round(q * 100)}": quantile(q, histogram) for q in (0.5, 0.95, 0.99)}


WHO = "{{instance}} {{worker}}"

ROWS: dict[str, list[Panel]] = {
    "Ranking": [
        Panel("Calls", "reqps", {"{{method}} {{code}}": rate("llmgr_ranking_calls_total", "method, code")}, "Finished calls."),
        Panel("Latency in the server", "s", _quantiles("llmgr_ranking_call_seconds"), "All methods; the network is not in it."),
        Panel(
            "Stages, p99",
            "s",
            {
                "queue": quantile(0.99, "llmgr_ranking_queue_seconds"),
                "{{stage}}": quantile(0.99, "llmgr_ranking_stage_seconds", "stage"),
                "all of ranking": quantile(0.99, "llmgr_ranking_rank_seconds"),
            },
            "Queue rises with load; score rises with the catalogue.",
        ),
        Panel(
            "Refused for overload",
            "reqps",
            {
                "{{method}}": rate("llmgr_ranking_shed_total", "method"),
                "unread": f"{rate('llmgr_ranking_calls_received_total')} - {rate('llmgr_ranking_calls_handed_over_total')}",
            },
            "More than 0 for minutes: add workers or hosts.",
        ),
        Panel(
            "In flight",
            "short",
            {
                WHO: f"sum by (instance, worker) ({gauge('llmgr_ranking_calls_running')})",
                f"{WHO}, message not come": gauge("llmgr_ranking_calls_unsent"),
            },
            "Calls now. Many whose message has not come: somebody opens calls and leaves them; they hold no thread.",
        ),
        Panel(
            "Behind the store",
            "short",
            {WHO: gauge("llmgr_ranking_sequence_lag")},
            "Changes that the store has and rankings do not. Above 0 for seconds: the follower is stuck, see its log.",
        ),
        Panel(
            "Last look at the store",
            "s",
            {
                WHO: f"time() - {gauge('llmgr_ranking_last_follow_timestamp_seconds')}",
                "failed looks a second": rate("llmgr_ranking_follow_failures_total"),
            },
            "Age of the last look that went well; it should stay below a second.",
        ),
        Panel(
            "Catalogue",
            "short",
            {
                f"items {WHO}": gauge("llmgr_ranking_items"),
                f"sequence {WHO}": gauge("llmgr_ranking_sequence"),
                "vectors refused": f"sum({gauge('llmgr_ranking_refused_vectors_total')})",
            },
            "Replicas that differ for long have lost touch.",
        ),
        Panel(
            "By popularity",
            "percentunit",
            {"share": f"{rate('llmgr_ranking_fallbacks_total')} / {rate('llmgr_ranking_rank_seconds_count')}"},
            "Sessions without a known click. A jump: the shop sends ids of another catalogue.",
        ),
        Panel(
            "Bundles loaded",
            "short",
            {"{{outcome}}": f"sum by (outcome) (increase(llmgr_ranking_bundle_loads_total{{{HERE}}}[{WINDOW}]))"},
            "Refused: the log names the reason; the old bundle goes on.",
        ),
        Panel(
            "Stuck",
            "short",
            {WHO: gauge("llmgr_ranking_stuck")},
            "1: a ranking takes longer than any should; health says NOT_SERVING, and the process ends itself if it lasts.",
        ),
        Panel("Workers up", "short", {WHO: gauge("llmgr_worker_up")}, "0: a worker's page cannot be read.", "stat"),
    ],
    "Embedding": [
        Panel(
            "Calls",
            "reqps",
            {"{{method}} {{code}}": rate("llmgr_embedding_calls_total", "method, code")},
            "Finished calls; a stream is one call.",
        ),
        Panel(
            "Items of streams",
            "short",
            {"{{code}} a second": rate("llmgr_embedding_stream_items_total", "code")},
            "What EmbedItems told of each item: items fail alone, and their stream ends with OK.",
        ),
        Panel("Latency in the server", "s", _quantiles("llmgr_embedding_call_seconds"), "All methods, streams too."),
        Panel(
            "Where items came from",
            "reqps",
            {
                "unchanged": rate("llmgr_embedding_unchanged_items_total"),
                "text known": rate("llmgr_embedding_known_texts_total"),
                "text new": rate("llmgr_embedding_new_texts_total"),
            },
            "Only new texts cost a forward of the language model.",
        ),
        Panel(
            "Cache hits",
            "percentunit",
            {
                "share": "1 - {new} / ({new} + {known} + {same})".format(
                    new=rate("llmgr_embedding_new_texts_total"),
                    known=rate("llmgr_embedding_known_texts_total"),
                    same=rate("llmgr_embedding_unchanged_items_total"),
                )
            },
            "Items whose vector stood in the store.",
        ),
        Panel(
            "Language model",
            "s",
            {
                "waiting p99": quantile(0.99, "llmgr_embedding_queue_seconds"),
                "forward p50": quantile(0.5, "llmgr_embedding_forward_seconds"),
                "forward p99": quantile(0.99, "llmgr_embedding_forward_seconds"),
            },
            "Waiting for it, and one round of it.",
        ),
        Panel(
            "Texts",
            "short",
            {
                "waiting": gauge("llmgr_embedding_queued_texts"),
                "read a second": rate("llmgr_embedding_forward_texts_total"),
                "refused a second": rate("llmgr_embedding_refused_texts_total"),
                "calls too large together, refused a second": rate("llmgr_embedding_refused_calls_total"),
                "dropped a second": rate("llmgr_embedding_dropped_texts_total"),
                "without a usable vector": rate("llmgr_embedding_model_faults_total"),
            },
            "Refused: the queue is full, or the items of all calls are too large together. Dropped: the caller hung up.",
        ),
        Panel(
            "Durable writes",
            "s",
            {
                "p50": quantile(0.5, "llmgr_embedding_commit_seconds"),
                "p99": quantile(0.99, "llmgr_embedding_commit_seconds"),
            },
            "One fsync; inserts share it.",
        ),
        Panel(
            "Items written",
            "reqps",
            {
                "written": rate("llmgr_embedding_committed_items_total"),
                "failed": rate("llmgr_embedding_failed_commits_total"),
            },
            "Failed: the disk is full or broken.",
        ),
        Panel(
            "In the background",
            "short",
            {
                "items without their vector": gauge("llmgr_embedding_missing_vectors"),
                "items that get none": gauge("llmgr_embedding_unfillable_items"),
                "embedded a second": rate("llmgr_embedding_filled_items_total"),
                "records pruned a second": rate("llmgr_embedding_pruned_records_total"),
            },
            "A new model's vectors, and what was lost; the first line should fall to 0.",
        ),
        Panel(
            "Store",
            "short",
            {"sequence": gauge("llmgr_embedding_sequence"), "damaged records": gauge("llmgr_embedding_damaged_records")},
            "Damaged records above 0: verify the store, see docs/store.md.",
        ),
    ],
    "Both": [
        Panel(
            "Versions",
            "short",
            {
                "{{service}} {{version}} {{instance}} {{worker}}": gauge("llmgr_build_info"),
                "{{service}} model {{model_version}} {{instance}} {{worker}}": gauge("llmgr_model_info"),
            },
            "Program and model of each process.",
            "stat",
        ),
        Panel(
            "Processor",
            "percentunit",
            {WHO: f"sum by (instance, worker) (rate(process_cpu_seconds_total{{{HERE}}}[{WINDOW}]))"},
            "Cores in use; a ranking worker uses one at most.",
        ),
        Panel("Memory", "bytes", {WHO: gauge("process_resident_memory_bytes")}, "Resident; it grows with the catalogue alone."),
        Panel(
            "Callers turned away",
            "reqps",
            {
                "ranking {{code}}": rate("llmgr_ranking_calls_total", "code", 'code=~"UNAUTHENTICATED|PERMISSION_DENIED"'),
                "embedding {{code}}": rate("llmgr_embedding_calls_total", "code", 'code=~"UNAUTHENTICATED|PERMISSION_DENIED"'),
            },
            "A wrong token, or one of too small a scope. The log has the method and the request id.",
        ),
        Panel(
            "Certificate runs out in",
            "s",
            {WHO: f"{gauge('llmgr_certificate_expiry_timestamp_seconds')} - time()"},
            "Renew it in place; no restart is needed.",
        ),
        Panel(
            "Security files",
            "short",
            {"{{file}} {{outcome}}": f"sum by (file, outcome) (increase(llmgr_security_reloads_total{{{HERE}}}[{WINDOW}]))"},
            "Refused: the old certificate or tokens stay in use; the log says why.",
        ),
    ],
}
