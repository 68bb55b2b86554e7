"""The ranking server of one process: loading, listening, stopping."""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from prometheus_client import CollectorRegistry

from llmgr_core.settings.serve import ServeSettings
from services.admin.server import AdminServer
from services.contract import ranking_service_pb2 as messages
from services.observability.tracing import tracer_of
from services.ranking.array_directory import SharedArrays
from services.ranking.bundle_watcher import BundleWatcher, signature_of
from services.ranking.change_follower import ChangeFollower
from services.ranking.control import RankingControl
from services.ranking.current_ranker import CurrentRanker
from services.ranking.live_ranker import LiveRanker
from services.ranking.metrics import METHODS, RankingMetrics
from services.ranking.own_core import OwnCore
from services.ranking.received_calls import counted_server
from services.ranking.service import RankingMethods
from services.ranking.shadow_scan import ShadowScan
from services.ranking.warm_up import WarmUp
from services.ranking.watchdog import Watchdog
from services.security.server_security import ServerSecurity
from services.server.admission import BoundedMethod, BoundedMethods, BoundedPool
from services.server.binding import bind, require_free_port, server_options
from services.server.bounded_reflection import METHOD as REFLECTION
from services.server.bounded_reflection import BoundedReflection
from services.server.errors import overloaded
from services.server.health_port import HealthPort
from services.server.message_first import UnsentMessages
from services.server.observation import CallObserver, MetricsPage
from services.server.refusal import refusal_of
from services.server.sync_health import SyncHealth
from services.server.sync_methods import unary_method

FULL_NAME = messages.DESCRIPTOR.services_by_name["RankingService"].full_name
OPERATIONS_THREADS = 8
# For messages of calls that came just before the server takes no more.
LAST_MESSAGES_S = 0.5


class RankingServer:
    """Ranks by a bundle and a store; a context manager that serves inside the block.

    ``ranking_pool`` and ``batch_pool`` tell how many calls wait or run.

    Args:
        bundle_path: directory of the bundle.
        store_path: directory of the embedding store; a bundle that ranks by ids alone does without one.
        settings: addresses and limits.
        share_port: let other processes listen on the same port (SO_REUSEPORT).
        arrays: where rows and weights are held together with those processes; None keeps them here.
        end_when_stuck: end the process where a ranking is stuck for ``settings.exit_when_stuck_s``.

    Raises:
        LlmgrError: the port is in use, the bundle or the store cannot be served; the message says why.
    """

    def __init__(
        self,
        bundle_path: Path,
        store_path: Path,
        settings: ServeSettings,
        *,
        share_port: bool = False,
        arrays: SharedArrays | None = None,
        end_when_stuck: bool = False,
    ) -> None:
        if not share_port:
            # Before the bundle is loaded: who mistyped a port need not wait for that.
            require_free_port(settings.host, settings.ranking_port)
        self._settings = settings
        self.registry = CollectorRegistry()
        tracer = tracer_of(settings.tracing, "ranking")
        self._observer = CallObserver("ranking", self.registry, METHODS, log_successes=settings.log_successes, tracer=tracer)
        self._security = ServerSecurity(settings.security, self._observer)
        self._security.require_safe_host(settings.host)
        served = signature_of(bundle_path, store_path)
        self.current = CurrentRanker(LiveRanker.open(bundle_path, store_path, settings.device, arrays, settings.ann))
        self.metrics = RankingMetrics(self.registry)
        self.metrics.watch(self.current)
        self._follower = ChangeFollower(self.current, settings.poll_ms / 1e3, self.metrics)
        self._own_core = OwnCore()
        self._watcher = BundleWatcher(
            self.current,
            bundle_path,
            store_path,
            served=served,
            poll_seconds=settings.bundle_poll_s,
            metrics=self.metrics,
            device=settings.device,
            arrays=arrays,
            ann=settings.ann,
            own_core=self._own_core,
        )
        self._shadow = ShadowScan(settings.ann, self.metrics) if settings.ann.enabled else None
        self._answering = self._draining = self._is_stuck = False
        self._telling = threading.Lock()
        exit_after = settings.exit_when_stuck_s if end_when_stuck and settings.exit_when_stuck_s else None
        self._watchdog = Watchdog(settings.stuck_after_s, self._stuck, exit_after)
        self._operations = ThreadPoolExecutor(OPERATIONS_THREADS, "operations")
        self.ranking_pool = BoundedPool(settings.threads, settings.max_queue, "ranking", settings.max_wait_ms / 1e3)
        self.batch_pool = BoundedPool(settings.max_batch_threads, settings.max_batch_queue, "batches")
        self._unsent = UnsentMessages(settings.max_unsent, self._observer)
        self.metrics.unsent.set_function(lambda: len(self._unsent))
        self._server, self._health, self._reflection = self._assemble()
        self._warm_up = WarmUp(self._server, self.current, settings, self._watchdog, self.ranking_pool)
        self._page: MetricsPage | None = None
        self._admin: AdminServer | None = None
        self._health_port: HealthPort | None = None
        self.port = 0
        try:
            self.port = self._listen(share_port)
            if settings.health_port >= 0:
                self._health_port = HealthPort(
                    FULL_NAME, settings.host, settings.health_port, self._security, share_port=share_port
                )
            if settings.metrics_port >= 0:
                self._page = MetricsPage(self.registry, settings.metrics_port)
            if settings.admin_port >= 0:
                control = RankingControl(self.current, self._watcher, self._drain)
                self._admin = AdminServer(control, settings.host, settings.admin_port, self._security, self._observer)
        except BaseException:
            self._close()
            raise

    @property
    def address(self) -> str:
        """host:port that clients connect to."""
        host = self._settings.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def metrics_port(self) -> int | None:
        return None if self._page is None else self._page.port

    @property
    def health_port(self) -> int | None:
        return None if self._health_port is None else self._health_port.port

    @property
    def admin_port(self) -> int | None:
        return None if self._admin is None else self._admin.port

    def start(self) -> None:
        """Answer requests; health says SERVING from here on, after a few calls of its own.

        Raises:
            LlmgrError: it does not answer them.
        """
        if self._settings.own_core:
            self._own_core.claim()
        self._server.start()
        self._follower.start()
        if self._shadow is not None:
            self._shadow.start()
        self._watchdog.start()
        if self._settings.bundle_poll_s > 0:
            self._watcher.start()
        try:
            self._warm_up.run()
        except BaseException:
            self.stop()
            raise
        self._answering = True
        self._tell_health()

    def stop(self) -> None:
        """Say NOT_SERVING, refuse new calls, let those in flight finish within ``drain_s``, then let go of everything."""
        self._answering = False
        self._tell_health()
        time.sleep(self._settings.not_serving_s)
        drained = self._server.stop(self._settings.drain_s)
        self._health.end_watches()
        self._reflection.end_streams()
        while not drained.wait(LAST_MESSAGES_S):
            self._unsent.end_all()
            self._health.hang_up()
        self._close()

    def _stuck(self, stuck: bool) -> None:
        self.metrics.stuck.set(stuck)
        self._is_stuck = stuck
        self._tell_health()

    def _drain(self, draining: bool) -> None:
        self._draining = draining
        self._tell_health()

    def _tell_health(self) -> None:
        # The watchdog, the admin service and the main thread each change one of the three.
        with self._telling:
            serving = self._answering and not self._draining and not self._is_stuck
            self._health.set_serving(serving)
            if self._health_port is not None:
                self._health_port.health.set_serving(serving)

    def _close(self) -> None:
        self._warm_up.end()
        for port in (self._admin, self._health_port):
            if port is not None:
                port.close()
        self._watcher.stop()
        self._follower.stop()
        if self._shadow is not None:
            self._shadow.stop()
        self._watchdog.stop()
        self._health.close()
        self._reflection.close()
        for pool in (self._operations, self.ranking_pool, self.batch_pool):
            pool.shutdown(wait=False, cancel_futures=True)
        if self._page is not None:
            self._page.close()
        self._observer.close()
        self.current.ranker.close()
        self._own_core.release()

    def _assemble(self) -> tuple[grpc.Server, SyncHealth, BoundedReflection]:
        settings = self._settings
        ranking, batches = self.ranking_pool, self.batch_pool
        options = server_options(
            settings.max_request_bytes,
            share_port=True,
            max_connection_age_s=settings.max_connection_age_s,
            max_unread=settings.max_unread,
        )
        server, calls = counted_server(self._unsent.before(self._operations), self._security.sync_interceptors(), options)
        self.registry.register(calls)
        server_health = SyncHealth(server, FULL_NAME, self._unsent)
        answers = RankingMethods(self.current, settings, self.metrics, self._watchdog, ranking, self._shadow)
        observed = functools.partial(unary_method, observer=self._observer)
        methods = {
            "RankSession": (observed("RankSession", messages.RankSessionRequest, answers.rank_session), ranking),
            "RankSessions": (observed("RankSessions", messages.RankSessionsRequest, answers.rank_sessions), batches),
            "GetInfo": (observed("GetInfo", messages.RankingServiceGetInfoRequest, answers.get_info), ranking),
        }
        error = overloaded("too many requests are waiting", settings.retry_after_ms / 1e3)
        bounded = {
            name: BoundedMethod(handler, pool, refusal_of(name, error, self._observer, self.metrics.shed.labels(name)))
            for name, (handler, pool) in methods.items()
        }
        server.add_generic_rpc_handlers((BoundedMethods(FULL_NAME, bounded, self._unsent),))
        shed = self.metrics.shed.labels(REFLECTION)
        return server, server_health, BoundedReflection(server, FULL_NAME, self._observer, shed)

    def _listen(self, share_port: bool) -> int:
        settings = self._settings
        return bind(self._server, settings.host, settings.ranking_port, self._security, share_port=share_port)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
