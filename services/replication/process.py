"""Publisher and replica as programs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import CollectorRegistry

from llmgr_core.settings.replication import ReplicationSettings
from services.replication.metrics import PublisherMetrics, ReplicaMetrics
from services.replication.publisher import Publisher
from services.replication.replica import Replica
from services.server.observation import MetricsPage, configure_logs
from services.server.stopping import StopSignal

OnReady = Callable[[dict[str, Any]], None]


class _Follower(Protocol):
    def run(self) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


def publish(store_path: Path, settings: ReplicationSettings, on_ready: OnReady) -> None:
    """Publish a store's changes until SIGTERM or SIGINT.

    Args:
        store_path: of the embedding host.
        settings: section [replication].
        on_ready: told epoch, sequence and the metrics page, once the store is open.

    Raises:
        LlmgrError: see Publisher.
    """
    configure_logs()
    registry = CollectorRegistry()
    publisher = Publisher(store_path, settings, PublisherMetrics(registry))
    page = _page(registry, settings.publisher_metrics_port, publisher)
    _run(publisher, page, lambda: on_ready({**publisher.facts(), **_ports(page)}))


def follow(store_path: Path, settings: ReplicationSettings, on_ready: OnReady, *, fresh: bool = False) -> None:
    """Keep a replica up to date until SIGTERM or SIGINT.

    Args:
        store_path: of this ranking host.
        settings: section [replication].
        on_ready: told epoch, sequence and the metrics page, once there is a store that rankers can open.
        fresh: see Replica.

    Raises:
        LlmgrError: see Replica.
    """
    configure_logs()
    registry = CollectorRegistry()
    pages: list[MetricsPage | None] = []
    replica = Replica(
        store_path,
        settings,
        ReplicaMetrics(registry),
        lambda store: on_ready({"epoch": store.epoch, "sequence": store.position, **_ports(pages[0])}),
        fresh=fresh,
    )
    pages.append(_page(registry, settings.replica_metrics_port, replica))
    _run(replica, pages[0])


def _page(registry: CollectorRegistry, port: int, follower: _Follower) -> MetricsPage | None:
    try:
        return MetricsPage(registry, port) if port >= 0 else None
    except BaseException:
        follower.close()
        raise


def _ports(page: MetricsPage | None) -> dict[str, Any]:
    return {"metrics_ports": [] if page is None else [page.port], "pids": [os.getpid()]}


def _run(follower: _Follower, page: MetricsPage | None, announce: Callable[[], None] = lambda: None) -> None:
    broken: list[BaseException] = []

    def work() -> None:
        try:
            follower.run()
        except BaseException as error:
            # Whatever was not foreseen: end, so that the supervisor starts a new one.
            broken.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=work, name="follower")
    try:
        with StopSignal() as stop:
            announce()
            thread.start()
            stop.wait()
    finally:
        follower.stop()
        if thread.is_alive():
            thread.join()
        follower.close()
        if page is not None:
            page.close()
    if broken:
        raise broken[0]
