"""Several ranking processes on one port, and the process that looks after them.

Each worker builds its own rows, so a crash of one costs a second of a share of the traffic and nothing else; what is equal in
all of them is held in memory once. The kernel spreads connections, not calls, over the workers; `max_connection_age_s` and
several client connections even that out.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from llmgr_core.errors import LlmgrError
from llmgr_core.settings.serve import ServeSettings
from services.observability.merged_metrics import MergedMetrics
from services.ranking.array_directory import SharedArrays, SharedDirectory
from services.server.binding import require_free_port
from services.server.interpreter import no_collections, settle_interpreter
from services.server.observation import MetricsPage, configure_logs
from services.server.stopping import StopSignal

SECONDS_BEFORE_RESTART = 0.2
LONGEST_START_SECONDS = 600.0

log = structlog.get_logger(service="ranking")
# Workers are forked, by a process that has imported what they need and used nothing of it. One that has used gRPC or LMDB would
# leave its child with broken copies of both; one that had imported nothing would have each worker import it again (0.4 s).
forking = multiprocessing.get_context("forkserver")
forking.set_forkserver_preload(["services.ranking.worker_parent"])


class Workers:
    """Starts ``settings.workers`` ranking processes on one port and restarts those that die, until ``stop``.

    Args:
        bundle_path, store_path, settings: as RankingServer takes them.

    Raises:
        LlmgrError: a worker cannot start; the message is the worker's own.
    """

    def __init__(self, bundle_path: Path, store_path: Path, settings: ServeSettings) -> None:
        self._reservations: list[socket.socket] = []
        self.port = self._reserve(settings.host, settings.ranking_port)
        self.health_port = None if settings.health_port < 0 else self._reserve(settings.host, settings.health_port)
        self._paths = (bundle_path, store_path)
        self._shared = SharedDirectory()
        ports = {
            "ranking_port": self.port,
            "health_port": settings.health_port if self.health_port is None else self.health_port,
        }
        self._settings = settings.model_copy(update=ports)
        self._processes: dict[int, Any] = {}
        self._pipes: dict[int, Connection[Any, Any]] = {}
        self._pages: dict[int, int | None] = {}
        self._reading_pipes = threading.Lock()
        self._page: MetricsPage | None = None
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def _reserve(self, host: str, port: int) -> int:
        """The port that all workers are to share; held but never listened on.

        So it stays ours where it was chosen just now, and while all workers are down.
        """
        require_free_port(host, port)
        reservation = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self._reservations.append(reservation)
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reservation.bind((host, port))
        reserved: int = reservation.getsockname()[1]
        return reserved

    @property
    def metrics_port(self) -> int | None:
        """Port of the page that shows the metrics of all workers."""
        return None if self._page is None else self._page.port

    def start(self) -> list[dict[str, Any]]:
        """Start all workers; returns what each says of itself once all serve."""
        try:
            if self._settings.metrics_port >= 0:
                registry = CollectorRegistry()
                self._page = MetricsPage(registry, self._settings.metrics_port)
            starting = [self._launch(number) for number in range(self._settings.workers)]
            facts = [_ready(pipe) for pipe in starting]
            self._pages = {number: one["metrics_port"] for number, one in enumerate(facts)}
            if self._page is not None:
                registry.register(MergedMetrics(self._worker_pages))
        except BaseException:
            self.stop()
            raise
        self._keeper.start()
        return facts

    def stop(self) -> None:
        """Ask every worker to drain and wait for it."""
        self._stopping.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for process in self._processes.values():
            if process.is_alive():
                process.terminate()
        longest = self._settings.drain_s + self._settings.not_serving_s + 5.0
        for process in self._processes.values():
            process.join(longest)
            if process.is_alive():
                process.kill()
                process.join()
        for reservation in self._reservations:
            reservation.close()
        self._shared.close()
        if self._page is not None:
            self._page.close()

    def _launch(self, number: int) -> Connection[Any, Any]:
        ours, theirs = forking.Pipe(duplex=False)
        # Their own pages are for the merged one alone, on whatever ports are free.
        admin = self._settings.admin_port
        changes = {"metrics_port": min(self._settings.metrics_port, 0), "admin_port": admin + number if admin > 0 else admin}
        settings = self._settings.model_copy(update=changes)
        process = forking.Process(
            target=run_worker, args=(*self._paths, settings, self._shared.path, theirs), name=f"ranking-{number}"
        )
        process.start()
        theirs.close()
        # Kept open: a restarted worker reports too, and must not find a broken pipe.
        with self._reading_pipes:
            self._processes[number], self._pipes[number], self._pages[number] = process, ours, None
        return ours

    def _worker_pages(self) -> dict[int, int | None]:
        """Ports of the workers' metrics pages; None for a worker that does not serve yet."""
        with self._reading_pipes:
            for number, pipe in self._pipes.items():
                try:
                    while self._pages[number] is None and pipe.poll():
                        self._pages[number] = pipe.recv().get("metrics_port")
                except (EOFError, OSError):
                    continue
            return dict(self._pages)

    def _keep(self) -> None:
        while not self._stopping.is_set():
            sentinels = {process.sentinel: number for number, process in self._processes.items()}
            for sentinel in wait(list(sentinels), timeout=SECONDS_BEFORE_RESTART):
                number = sentinels[sentinel]
                died = self._processes[number]
                died.join()
                log.error("worker_died", worker=number, exit_code=died.exitcode)
                self._shared.forget(died.pid)
                if self._stopping.wait(SECONDS_BEFORE_RESTART):
                    return
                try:
                    self._launch(number)
                except OSError as error:
                    # No memory, or too many processes: tried again as long as it takes.
                    log.error("worker_not_started", worker=number, error=str(error))
                    continue
                # What was reported dead because the process that forked it is gone notices, and ends.
                died.close()


def run_worker(bundle_path: Path, store_path: Path, settings: ServeSettings, shared: Path, pipe: Connection[Any, Any]) -> None:
    """Serve in a process of its own until SIGTERM, or until the process that started it is gone."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    configure_logs()
    from services.ranking.server import RankingServer

    try:
        with no_collections():
            server = RankingServer(
                bundle_path, store_path, settings, share_port=True, arrays=SharedArrays(shared), end_when_stuck=True
            )
    except LlmgrError as error:
        pipe.send({"error": error.args[0], "hint": error.hint})
        raise SystemExit(2) from None
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    settle_interpreter()
    with server, StopSignal() as stop:
        pipe.send(
            {
                "pid": os.getpid(),
                "metrics_port": server.metrics_port,
                "admin_port": server.admin_port,
                "model_version": server.current.ranker.version,
            }
        )
        pipe.close()
        stop.wait()


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _ready(pipe: Connection[Any, Any]) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = pipe.recv() if pipe.poll(LONGEST_START_SECONDS) else {"error": "a worker did not start in time"}
    except EOFError:
        facts = {"error": "a worker ended before it served; its log says why"}
    if "error" in facts:
        raise LlmgrError(facts["error"], facts.get("hint"))
    return facts
