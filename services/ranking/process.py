"""The ranking service as a program: one process, or several under one that looks after them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmgr_core.settings.serve import ServeSettings
from services.server.interpreter import no_collections, settle_interpreter
from services.server.observation import configure_logs
from services.server.stopping import StopSignal


def serve_ranking(
    bundle_path: Path, store_path: Path, settings: ServeSettings, on_ready: Callable[[dict[str, Any]], None]
) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Args:
        bundle_path: directory of the bundle.
        store_path: directory of the embedding store.
        settings: addresses, limits, number of workers.
        on_ready: given address, process ids, other ports and bundle version once every worker answers.

    Raises:
        LlmgrError: port in use, bundle or store that cannot be served.
    """
    configure_logs()
    if settings.workers > 1:
        _serve_by_workers(bundle_path, store_path, settings, on_ready)
    else:
        _serve_here(bundle_path, store_path, settings, on_ready)


def _serve_here(
    bundle_path: Path, store_path: Path, settings: ServeSettings, on_ready: Callable[[dict[str, Any]], None]
) -> None:
    from services.ranking.server import RankingServer

    with no_collections():
        server = RankingServer(bundle_path, store_path, settings, end_when_stuck=True)
    settle_interpreter()
    with server, StopSignal() as stop:
        on_ready(
            {
                "address": server.address,
                "metrics_ports": [] if server.metrics_port is None else [server.metrics_port],
                "admin_ports": [] if server.admin_port is None else [server.admin_port],
                "health_port": server.health_port,
                "pids": [os.getpid()],
                "model_version": server.current.ranker.version,
            }
        )
        stop.wait()


def _serve_by_workers(
    bundle_path: Path, store_path: Path, settings: ServeSettings, on_ready: Callable[[dict[str, Any]], None]
) -> None:
    from services.ranking.workers import Workers

    workers = Workers(bundle_path, store_path, settings)
    facts = workers.start()
    with contextlib.ExitStack() as stack:
        stack.callback(workers.stop)
        stop = stack.enter_context(StopSignal())
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        on_ready(
            {
                "address": f"{host}:{workers.port}",
                "metrics_ports": [] if workers.metrics_port is None else [workers.metrics_port],
                "admin_ports": [one["admin_port"] for one in facts if one["admin_port"] is not None],
                "health_port": workers.health_port,
                "pids": [one["pid"] for one in facts],
                "model_version": facts[0]["model_version"],
            }
        )
        stop.wait()
