"""A server that is told to stop waits for calls under way, and for nobody who only keeps a stream open."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from bundle_fixture import Catalogue, free_port_settings
from embedding_fixture import ControlledModel, encoder_around, settings_with
from grpc_health.v1 import health_pb2, health_pb2_grpc
from patience import PATIENCE, wait_until
from test_fault_idle_streams import ReflectionStream
from unsent_calls import UnsentCalls

from services.embedding.background import serve_in_background
from services.ranking.server import RankingServer

# Nothing here is meant to last so long.
DRAIN_S = PATIENCE
STATUS = health_pb2.HealthCheckResponse
BOTH = pytest.mark.parametrize("service", ["ranking", "embedding"])


@contextlib.contextmanager
def served(service: str, catalogue: Catalogue) -> Iterator[str]:
    """Address of a server in this process, which is told to stop at the end of the block."""
    if service == "ranking":
        with RankingServer(catalogue.bundle, catalogue.store, free_port_settings(drain_s=DRAIN_S)) as server:
            yield server.address
    else:
        settings = settings_with(f"serve.drain_s={DRAIN_S}")
        with serve_in_background(encoder_around(ControlledModel()), catalogue.store.with_name("own"), settings) as listening:
            yield listening.address


class Watch(threading.Thread):
    """What a watcher of a server's health is told, until the server ends it."""

    def __init__(self, channel: grpc.Channel, service: str = "") -> None:
        super().__init__()
        request = health_pb2.HealthCheckRequest(service=service)
        self.told: list[int] = []
        self.call = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=4 * DRAIN_S)
        self.start()

    def run(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for reply in self.call:
                self.told.append(reply.status)


@BOTH
def test_fault_termination_idle_streams_hold_no_server_that_stops(service: str, catalogue: Catalogue):
    with contextlib.ExitStack() as stack:
        with served(service, catalogue) as address:
            channel = stack.enter_context(grpc.insecure_channel(address))
            reflection = [ReflectionStream(channel) for _ in range(3)]
            assert all(stream.answered for stream in reflection)
            watches = [Watch(channel), Watch(channel)]
            unknown = Watch(channel, "nobody")
            wait_until(lambda: all(watch.told for watch in (*watches, unknown)))
            began = time.monotonic()
        assert time.monotonic() - began < DRAIN_S / 2
        for watch in (*watches, unknown):
            watch.join()
            assert watch.call.code() is grpc.StatusCode.OK
        # Told first, then let go of.
        assert [watch.told for watch in watches] == [[STATUS.SERVING, STATUS.NOT_SERVING]] * 2
        assert unknown.told == [STATUS.SERVICE_UNKNOWN]
        for stream in reflection:
            assert stream.ending() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
            stream.end()


def test_fault_termination_calls_without_a_message_hold_no_server_that_stops(catalogue: Catalogue):
    with contextlib.ExitStack() as stack:
        with RankingServer(catalogue.bundle, catalogue.store, free_port_settings(drain_s=DRAIN_S)) as server:
            calls = stack.enter_context(UnsentCalls(server.address, "/llmgr.v1.RankingService/RankSession", 5))
            wait_until(lambda: server.registry.get_sample_value("llmgr_ranking_calls_unsent") == 5)
            stack.enter_context(calls.answering_pings())
            began = time.monotonic()
        assert time.monotonic() - began < DRAIN_S / 2
        stack.close()
        assert set(calls.statuses.values()) == {grpc.StatusCode.UNAVAILABLE.value[0]}


@BOTH
def test_health_of_an_unknown_service_is_not_found(service: str, catalogue: Catalogue):
    with served(service, catalogue) as address, grpc.insecure_channel(address) as channel:
        with pytest.raises(grpc.RpcError) as raised:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=PATIENCE)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
