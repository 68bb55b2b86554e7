"""OpenTelemetry traces of calls, where they are asked for; the caller's trace goes on (W3C traceparent)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import grpc

from llmgr_core.errors import LlmgrError
from llmgr_core.settings.tracing import TracingSettings
from services.server.call_trace import NO_TRACE, CallTrace, CallTracer
from services.server.errors import SERVER_FAULTS

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

EXPORT_SECONDS = 5
# What travels with a call and may end up in a trace store: nothing else of the metadata is looked at.
PROPAGATED = ("traceparent", "tracestate")


class RecordedCall(CallTrace):
    """A span of kind SERVER."""

    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.trace_id = f"{context.trace_id:032x}" if context.is_valid else ""

    def end(self, code: grpc.StatusCode, reason: str, reply: Any = None) -> None:
        """Finish it with the status and, where the reply tells, where the time went."""
        span = self._span
        if span.is_recording():
            span.set_attribute("rpc.grpc.status_code", int(code.value[0]))
            if reason:
                span.set_attribute("llmgr.reason", reason)
            if code in SERVER_FAULTS:
                from opentelemetry.trace import StatusCode

                span.set_status(StatusCode.ERROR, reason)
            if reply is not None and "timing" in reply.DESCRIPTOR.fields_by_name:
                for field, nanoseconds in reply.timing.ListFields():
                    span.set_attribute(f"llmgr.{field.name.removesuffix('_ns')}_ms", nanoseconds / 1e6)
        span.end()


class RecordingTracer(CallTracer):
    """Starts a span for each call.

    Args:
        provider: where spans go.
        service: "embedding" or "ranking".
    """

    def __init__(self, provider: TracerProvider, service: str) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("llmgr")
        self._service = f"llmgr.v1.{service.capitalize()}Service"
        self._propagator = TraceContextTextMapPropagator()

    def start(self, method: str, metadata: Iterable[tuple[str, str | bytes]] | None, request_id: str) -> CallTrace:
        from opentelemetry.trace import SpanKind

        carrier = {key: value for key, value in metadata or () if key in PROPAGATED and isinstance(value, str)}
        attributes = {
            "rpc.system": "grpc",
            "rpc.service": self._service,
            "rpc.method": method,
            "llmgr.request_id": request_id,
        }
        span = self._tracer.start_span(
            f"{self._service}/{method}",
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes=attributes,
        )
        return RecordedCall(span)

    def close(self) -> None:
        self._provider.shutdown()


class NoTracer(CallTracer):
    """Where no collector is named."""

    def start(self, method: str, metadata: Iterable[tuple[str, str | bytes]] | None, request_id: str) -> CallTrace:
        return NO_TRACE

    def close(self) -> None:
        pass


def tracer_of(settings: TracingSettings, service: str, exporter: SpanExporter | None = None) -> CallTracer:
    """What records the calls of a server.

    Args:
        service: "embedding" or "ranking".
        exporter: where spans go instead of the endpoint, in a batch each second.

    Raises:
        LlmgrError: traces are asked for and OpenTelemetry is not installed.
    """
    if not settings.endpoint and exporter is None:
        return NoTracer()
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    except ImportError:
        raise LlmgrError(
            "serve.tracing.endpoint is set, but OpenTelemetry is not installed", "pip install '.[serve,otel]'"
        ) from None
    from llmgr_core import __version__

    resource = Resource.create({"service.name": f"llmgr-{service}", "service.version": __version__})
    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(settings.sample_ratio), resource=resource, shutdown_on_exit=False)
    exporter = exporter or OTLPSpanExporter(
        endpoint=settings.endpoint, insecure=not settings.endpoint.startswith("https"), timeout=EXPORT_SECONDS
    )
    # A thread of its own and a bounded queue: a collector that is away costs spans, never calls.
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    return RecordingTracer(provider, service)
