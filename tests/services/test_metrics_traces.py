"""Traces: sent to a real collector over OTLP, and the caller's trace goes on in the server."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from embedding_fixture import ControlledModel, client_of, encoder_around, settings_with
from patience import PATIENCE

from llmgr_core.data.item import Item
from llmgr_core.errors import LlmgrError
from llmgr_core.settings.tracing import TracingSettings
from services.client import RankingClient, ServiceError
from services.embedding.background import serve_in_background
from services.observability.tracing import tracer_of

pytest.importorskip("opentelemetry.sdk")
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SAMPLED = PARENT[:-1] + "0"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span it is sent."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, object]] = []
        self.arrived = threading.Event()

    def Export(self, request, context):
        for resource in request.resource_spans:
            service = next(one.value.string_value for one in resource.resource.attributes if one.key == "service.name")
            self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        self.arrived.set()
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector():
    """An OTLP collector on loopback."""
    received = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(received, server)
    received.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield received
    server.stop(0).wait()


def attributes(span) -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_calls_of_the_ranking_server_reach_the_collector(serve_ranking, collector):
    tracing = {"endpoint": collector.endpoint, "sample_ratio": 0.0}
    server = serve_ranking(tracing=tracing)
    sent = [("traceparent", PARENT), ("x-request-id", "visit-7"), ("authorization", "Bearer not-for-traces-0123456789")]
    with RankingClient(server.address, timeout=PATIENCE, metadata=sent) as client:
        client.rank(["item-1"])
        with pytest.raises(ServiceError):
            client.rank([], top_k=5000)
    with RankingClient(server.address, timeout=PATIENCE, metadata=[("traceparent", NOT_SAMPLED)]) as client:
        client.rank(["item-1"])
    assert collector.arrived.wait(PATIENCE)
    server._observer.close()
    (service, first), (_, second) = collector.spans
    assert service == "llmgr-ranking"
    assert (first.name, first.kind) == ("llmgr.v1.RankingService/RankSession", 2)
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == tuple(PARENT.split("-")[1:3])
    told = attributes(first)
    assert (told["rpc.grpc.status_code"], told["llmgr.request_id"]) == (0, "visit-7")
    assert 0 < told["llmgr.encode_ms"] + told["llmgr.score_ms"] + told["llmgr.select_ms"] <= told["llmgr.model_ms"]
    assert told["llmgr.model_ms"] <= told["llmgr.total_ms"]
    assert attributes(second)["rpc.grpc.status_code"] == 3
    assert attributes(second)["llmgr.reason"] == "INVALID_FIELD"
    assert "not-for-traces" not in str(collector.spans)


def test_the_client_passes_on_the_trace_that_its_program_is_in(tmp_path, collector):
    """The caller opens a span of its own; the server's spans, of the async server here, are children of it."""
    tracer = TracerProvider().get_tracer("shop")
    overrides = [f"serve.tracing.endpoint={collector.endpoint}"]
    with (
        serve_in_background(encoder_around(ControlledModel()), tmp_path / "store", settings_with(*overrides)) as listening,
        client_of(listening) as client,
    ):
        assert not [key for key, _ in client.metadata if key == "traceparent"]
        with tracer.start_as_current_span("page") as page:
            client.embed(Item("a", title="lamp"))
            with pytest.raises(ServiceError):
                client.get("unknown")
    context = page.get_span_context()
    assert [span.name.rpartition("/")[2] for _, span in collector.spans] == ["EmbedItem", "GetItem"]
    assert {span.trace_id.hex() for _, span in collector.spans} == {f"{context.trace_id:032x}"}
    assert {span.parent_span_id.hex() for _, span in collector.spans} == {f"{context.span_id:016x}"}
    assert attributes(collector.spans[0][1])["llmgr.store_ms"] > 0


def test_only_a_share_is_recorded_where_nobody_decided():
    kept = InMemorySpanExporter()
    tracer = tracer_of(TracingSettings(sample_ratio=0.25), "ranking", kept)
    for number in range(400):
        tracer.start("RankSession", (), str(number)).end(grpc.StatusCode.OK, "")
    tracer.close()
    assert 40 < len(kept.get_finished_spans()) < 180


@pytest.mark.parametrize("bad", ["", "00-zz-zz-01", "x" * 500, PARENT + "-more"])
def test_a_traceparent_that_is_none_begins_a_new_trace(bad):
    kept = InMemorySpanExporter()
    tracer = tracer_of(TracingSettings(sample_ratio=1.0), "ranking", kept)
    tracer.start("RankSession", [("traceparent", bad)], "1").end(grpc.StatusCode.INTERNAL, "INTERNAL")
    tracer.close()
    (span,) = kept.get_finished_spans()
    assert span.parent is None
    assert span.status.status_code is trace.StatusCode.ERROR


def test_a_collector_that_is_away_delays_no_call(serve_ranking):
    server = serve_ranking(tracing={"endpoint": "http://127.0.0.1:1", "sample_ratio": 1.0})
    with RankingClient(server.address, timeout=PATIENCE) as client:
        for _ in range(50):
            assert client.rank(["item-1"]).items


def test_traces_without_opentelemetry_are_refused_with_the_way_out(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(LlmgrError) as raised:
        tracer_of(TracingSettings(endpoint="http://127.0.0.1:4317"), "ranking")
    assert "otel" in raised.value.hint
