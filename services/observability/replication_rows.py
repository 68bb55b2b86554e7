"""What the Grafana dashboard shows of several ranking hosts: how far their copies of a store are, and what brings the changes.

Publishers and replicas have pages of their own, which are not among the instances that the dashboard lets one choose from.
"""

from __future__ import annotations

from services.observability.dashboard_rows import WINDOW, Panel

REPLICATION: dict[str, list[Panel]] = {
    "Replication": [
        Panel(
            "Behind the source",
            "short",
            {
                "replica {{instance}}": "llmgr_replica_sequence_lag",
                "publisher {{instance}}": "llmgr_publisher_sequence_lag",
            },
            "Changes that a copy, or the stream, lacks. While Redis is away, as far as was known then.",
        ),
        Panel(
            "Source last heard of",
            "s",
            {"{{instance}}": "time() - llmgr_replica_last_contact_timestamp_seconds"},
            "Above a few seconds: Redis or the publisher is away. Rankings go on from what the host has.",
        ),
        Panel(
            "Redis answers",
            "short",
            {
                "replica {{instance}}": "llmgr_replica_connected",
                "publisher {{instance}}": "llmgr_publisher_connected",
            },
            "0: it did not, the last time it was asked.",
        ),
        Panel(
            "Changes",
            "short",
            {
                "sent a second": f"sum(rate(llmgr_publisher_published_changes_total[{WINDOW}]))",
                "applied a second {{instance}}": f"rate(llmgr_replica_applied_changes_total[{WINDOW}])",
            },
            "What goes into the stream, and what each host has taken from it.",
        ),
        Panel(
            "Whole copies",
            "short",
            {
                "{{instance}} {{reason}}": f"increase(llmgr_replica_resyncs_total[{WINDOW}])",
                "{{outcome}} by the publisher": f"sum by (outcome) (increase(llmgr_publisher_copies_total[{WINDOW}]))",
                "streams begun anew": f"increase(llmgr_publisher_stream_restarts_total[{WINDOW}])",
            },
            "Fetched by a host for the first time, or because its copy and the source had parted; the reason says how.",
        ),
        Panel(
            "Failed",
            "short",
            {
                "replica {{instance}} a second": f"rate(llmgr_replica_failures_total[{WINDOW}])",
                "publisher {{instance}} a second": f"rate(llmgr_publisher_failures_total[{WINDOW}])",
                "damaged messages {{instance}} a second": f"rate(llmgr_replica_damaged_messages_total[{WINDOW}])",
            },
            "Attempts to reach Redis or a store, and messages that failed a checksum. The logs say why.",
        ),
    ]
}
