"""Logs and metrics of every call, the same for both servers."""

from __future__ import annotations

import itertools
import logging
import sys
import traceback
from collections.abc import Iterable
from typing import Any

import grpc
import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from llmgr_core.errors import LlmgrError
from services.server.call_trace import NO_TRACE, CallTrace, CallTracer
from services.server.errors import SERVER_FAULTS
from services.server.log_budget import LogBudget
from services.server.request_context import current_caller

LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
# Of each method and code; the counters miss nothing.
LINES_PER_SECOND = 10
METRICS_HOST = "127.0.0.1"
# The time at which each series began doubles the page, and no query of ours asks for it.
disable_created_metrics()  # type: ignore[no-untyped-call]


def configure_logs(level: int = logging.INFO) -> None:
    """One JSON object a line on standard error, for structlog and for the standard library's loggers."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


class CallObserver:
    """Counts, times and logs calls of one service.

    Args:
        service: short name for metrics and logs, "embedding" or "ranking".
        registry: where the metrics live; one per server, so that several servers fit into one process.
        methods: those of the service. Their series are there from the start, as zeros: a rate over a series that appears
            with its first call misses that call.
        log_successes: write a line for calls that went well too; a ranking server has too many of them.
        tracer: records calls; None records none.
    """

    def __init__(
        self,
        service: str,
        registry: CollectorRegistry,
        methods: Iterable[str],
        *,
        log_successes: bool = True,
        tracer: CallTracer | None = None,
    ) -> None:
        self.registry = registry
        self._tracer = tracer
        self.log = structlog.get_logger(service=service)
        self._log_successes = log_successes
        self._budget = LogBudget(LINES_PER_SECOND)
        prefix = f"llmgr_{service}"
        self._calls = Counter(f"{prefix}_calls", "Finished calls", ["method", "code"], registry=registry)
        self._seconds = Histogram(
            f"{prefix}_call_seconds", "Time in the server", ["method"], buckets=LATENCY_BUCKETS, registry=registry
        )
        ProcessCollector(registry=registry)
        self._running = Gauge(f"{prefix}_calls_running", "Calls in the server now", ["method"], registry=registry)
        # Looking a series up by its labels costs more than counting in it.
        self._series: dict[tuple[str, grpc.StatusCode], tuple[Gauge, Counter, Histogram]] = {}
        # From 0 on: a rate over a series that appears with its first call misses that call.
        for method, code in itertools.product(methods, (grpc.StatusCode.OK, *SERVER_FAULTS)):
            self._series_of(method, code)

    def started(
        self, method: str, metadata: Iterable[tuple[str, str | bytes]] | None = None, request_id: str = ""
    ) -> CallTrace:
        """A call has come; its trace is ended by ``finished``."""
        self._series_of(method, grpc.StatusCode.OK)[0].inc()
        return NO_TRACE if self._tracer is None else self._tracer.start(method, metadata, request_id)

    def finished(
        self,
        method: str,
        code: grpc.StatusCode,
        seconds: float,
        request_id: str,
        reason: str = "",
        *,
        trace: CallTrace = NO_TRACE,
        reply: Any = None,
    ) -> None:
        """A call is over; ``reply`` is the message it was answered with, if any."""
        running, calls, duration = self._series_of(method, code)
        running.dec()
        calls.inc()
        duration.observe(seconds)
        trace.end(code, reason, reply)
        succeeded = code is grpc.StatusCode.OK
        if succeeded and not self._log_successes:
            return
        kept_back = 0 if succeeded else self._budget.spend((method, code))
        if kept_back is None:
            return
        self._log(method, code, seconds, request_id, reason, kept_back, trace)

    def refused(self, method: str, code: grpc.StatusCode) -> int | None:
        """A call was refused before anything was done for it: counted, and neither timed nor traced.

        Returns:
            None where the log shall have no line of it, else what ``log_refused`` wants to know.
        """
        self._series_of(method, code)[1].inc()
        return self._budget.spend((method, code))

    def log_refused(self, method: str, code: grpc.StatusCode, reason: str, request_id: str, kept_back: int) -> None:
        """A line of one of those calls."""
        self._log(method, code, 0.0, request_id, reason, kept_back, NO_TRACE)

    def _log(
        self,
        method: str,
        code: grpc.StatusCode,
        seconds: float,
        request_id: str,
        reason: str,
        kept_back: int,
        trace: CallTrace,
    ) -> None:
        succeeded = code is grpc.StatusCode.OK
        facts = {"method": method, "code": code.name, "ms": round(seconds * 1e3, 3), "request_id": request_id}
        if not succeeded:
            facts["reason"] = reason
        if kept_back:
            facts["lines_kept_back"] = kept_back
        if (caller := current_caller()) is not None:
            facts["caller"] = caller
        if trace.trace_id:
            facts["trace_id"] = trace.trace_id
        if succeeded or code is grpc.StatusCode.CANCELLED:
            self.log.info("call", **facts)
        elif code in SERVER_FAULTS:
            self.log.error("call", **facts)
        else:
            self.log.warning("call", **facts)

    def _series_of(self, method: str, code: grpc.StatusCode) -> tuple[Gauge, Counter, Histogram]:
        known = self._series.get((method, code))
        if known is None:
            known = (self._running.labels(method), self._calls.labels(method, code.name), self._seconds.labels(method))
            self._series[method, code] = known
        return known

    def close(self) -> None:
        """Send the traces that were not sent yet."""
        if self._tracer is not None:
            self._tracer.close()

    def failed(self, method: str, request_id: str) -> None:
        """Log the exception that is being handled, with its traceback.

        Formatted here, so that no configuration of structlog adds the values of variables: they hold item texts and tokens.
        """
        self.log.error("unexpected error", method=method, request_id=request_id, exception=traceback.format_exc())


class MetricsPage:
    """The Prometheus page of one server, on loopback only.

    Args:
        registry: what it shows.
        port: 0 takes any free port.

    Raises:
        LlmgrError: the port is in use.
    """

    def __init__(self, registry: CollectorRegistry, port: int) -> None:
        try:
            self._server, self._thread = start_http_server(port, addr=METRICS_HOST, registry=registry)
        except OSError as error:
            raise LlmgrError(
                f"the metrics page cannot listen on {METRICS_HOST}:{port}: {error.strerror}",
                "choose another metrics_port, or -1 for none",
            ) from None
        self.port = int(self._server.server_port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
