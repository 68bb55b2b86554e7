"""Settings of section [serve]."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmgr_core.settings.ann import AnnSettings
from llmgr_core.settings.section import Section
from llmgr_core.settings.security import SecuritySettings
from llmgr_core.settings.tracing import TracingSettings


class ServeSettings(Section):
    """Section [serve]: addresses of both servers, and the limits of the ranking server.

    Attributes:
        host: interface to listen on; loopback unless someone decides otherwise, and then with TLS (see ``security``).
        ranking_port, embedding_port: 0 takes any free port and prints it.
        metrics_port: port of the ranking server's Prometheus page, on loopback only; 0 takes any free port, -1 has none.
            Several workers share one page, on which each has the label "worker".
        admin_port: port of AdminService (status, reload, rollback, drain) of the ranking server, on ``host``; worker N listens
            on the N-th port after it; 0 takes any free port, -1 has none. On other interfaces than loopback it needs tokens or
            mutual TLS.
        health_port: port of the standard health service alone, on ``host``, for balancers: there it answers under overload too;
            0 takes any free port, -1 has none. Beside the rankings health is always asked.
        device: where sessions are ranked, "cpu" or "cuda"; "cuda" holds the table on the GPU too and replays captured graphs.
        workers: ranking processes that share the port (SO_REUSEPORT) and one copy of the table.
        own_core: hold each ranking process to a core that no other one has claimed, for more sessions a second. For machines
            whose cores are not shared out to other busy services; containers need a set of cores each.
        threads: RPC threads of one process. Requests that wait for `min_sequence` hold one; ranking itself is limited by
            `ranking_slots`.
        ranking_slots: requests that may compute at the same time in one process; more only adds contention for the
            interpreter lock.
        joint_scan_items: rows from which on rankings that wait for the table are scored in one pass over it; 0 never.
        joint_scan_sessions: rankings in one pass; each takes four bytes an item.
        max_queue: requests admitted at the same time in one process; the next one is refused with RESOURCE_EXHAUSTED.
        max_wait_ms: a request that would wait longer than this for its turn is refused too, however few are admitted.
        max_unread: calls that gRPC holds until the server asks for them; what comes beyond is refused by gRPC itself, unread
            and for a fraction of a ranking's work. Clients see CANCELLED.
        max_unsent: calls whose message has not come; they hold no thread and are not among `max_queue`. Where there are more,
            the one that has waited longest is refused with RESOURCE_EXHAUSTED.
        stuck_after_s: a ranking that takes longer turns health NOT_SERVING until it ends.
        exit_when_stuck_s: a process whose ranking is stuck this long writes all stacks to its log and ends, so that another
            takes its place; 0 never ends it.
        max_batch_threads: RankSessions calls that run at the same time; they take turns with single requests.
        max_batch_queue: RankSessions calls admitted at the same time.
        retry_after_ms: what a refused client is told to wait.
        default_top_k, max_top_k: top_k 0 means the first; beyond the second is INVALID_ARGUMENT.
        max_session_items, max_candidates, max_excluded: ids a request may carry in each field.
        max_batch_sessions: sessions one RankSessions request may carry.
        max_request_bytes: size of one message; larger ones are refused by gRPC itself.
        poll_ms: how often the change log of the store is looked at.
        max_sequence_wait_s: longest wait for `min_sequence`, whatever the deadline.
        drain_s: time requests in flight have to finish after SIGTERM.
        not_serving_s: pause between saying NOT_SERVING and refusing new calls, so that balancers look elsewhere.
        max_connection_age_s: connections are renewed at this age, so that calls spread over worker processes and certificates
            are looked at again; both servers. Calls under way, streams too, end on the connection they began on.
        log_successes: write a log line for every answered request too.
        bundle_poll_s: how often the bundle directory is looked at for a new version; 0 never looks.
        ann: table [serve.ann]: approximate search of very large tables.
        security: table [serve.security], of both servers.
        tracing: table [serve.tracing], of both servers.
    """

    host: str = "127.0.0.1"
    ranking_port: int = Field(default=50052, ge=0, le=65535)
    embedding_port: int = Field(default=50051, ge=0, le=65535)
    metrics_port: int = Field(default=9464, ge=-1, le=65535)
    admin_port: int = Field(default=-1, ge=-1, le=65535)
    health_port: int = Field(default=-1, ge=-1, le=65535)
    device: Literal["cpu", "cuda"] = "cpu"
    workers: int = Field(default=1, ge=1, le=256)
    own_core: bool = False
    threads: int = Field(default=32, ge=2, le=1024)
    ranking_slots: int = Field(default=1, ge=1, le=64)
    joint_scan_items: int = Field(default=200_000, ge=0)
    joint_scan_sessions: int = Field(default=8, ge=2, le=64)
    max_queue: int = Field(default=128, ge=1, le=100_000)
    max_wait_ms: float = Field(default=300.0, ge=1.0, le=60_000.0)
    max_unread: int = Field(default=64, ge=1, le=100_000)
    max_unsent: int = Field(default=128, ge=1, le=100_000)
    stuck_after_s: float = Field(default=1.0, ge=0.05, le=3600.0)
    exit_when_stuck_s: float = Field(default=10.0, ge=0.0, le=3600.0)
    max_batch_threads: int = Field(default=2, ge=1, le=64)
    max_batch_queue: int = Field(default=8, ge=1, le=1024)
    retry_after_ms: int = Field(default=50, ge=1, le=60_000)
    default_top_k: int = Field(default=20, ge=1, le=1000)
    max_top_k: int = Field(default=1000, ge=1, le=1000)
    max_session_items: int = Field(default=1000, ge=1, le=100_000)
    max_candidates: int = Field(default=10_000, ge=1, le=1_000_000)
    max_excluded: int = Field(default=10_000, ge=1, le=1_000_000)
    max_batch_sessions: int = Field(default=256, ge=1, le=4096)
    max_request_bytes: int = Field(default=16 << 20, ge=1 << 16, le=1 << 30)
    poll_ms: float = Field(default=20.0, ge=1.0, le=10_000.0)
    max_sequence_wait_s: float = Field(default=1.0, gt=0.0, le=1.0)
    drain_s: float = Field(default=10.0, ge=0.0, le=600.0)
    not_serving_s: float = Field(default=0.0, ge=0.0, le=60.0)
    max_connection_age_s: float = Field(default=300.0, ge=1.0, le=86_400.0)
    log_successes: bool = False
    bundle_poll_s: float = Field(default=0.25, ge=0.0, le=3600.0)
    ann: AnnSettings = AnnSettings()
    security: SecuritySettings = SecuritySettings()
    tracing: TracingSettings = TracingSettings()
