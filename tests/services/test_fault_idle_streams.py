"""Streams that are opened and then left alone take no thread that a health check or an operator needs."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from bundle_fixture import Catalogue, free_port_settings
from certificate_fixture import server_settings, token_file
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from patience import PATIENCE, wait_until

from services.client import RankingClient
from services.client.admin_client import AdminClient
from services.ranking.server import RankingServer

IDLE_STREAMS = 40
QUESTION = reflection_pb2.ServerReflectionRequest(list_services="")


class ReflectionStream:
    """A question that was asked, and a client that then keeps quiet without hanging up.

    Attributes:
        answered: whether the server took the stream; else ``code`` says why not.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._questions: queue.SimpleQueue[reflection_pb2.ServerReflectionRequest | None] = queue.SimpleQueue()
        self._questions.put(QUESTION)
        self._call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter(self._questions.get, None), timeout=4 * PATIENCE
        )
        self.code: grpc.StatusCode | None = None
        try:
            names = [one.name for one in next(self._call).list_services_response.service]
            self.answered = "grpc.health.v1.Health" in names
        except grpc.RpcError as error:
            self.answered, self.code = False, error.code()

    def ending(self) -> grpc.StatusCode:
        """Wait until the server ends it."""
        code: grpc.StatusCode = self._call.code()
        return code

    def end(self) -> None:
        self._questions.put(None)


@contextmanager
def idle_streams(address: str) -> Iterator[tuple[grpc.Channel, list[ReflectionStream]]]:
    """Far more of them than a server has threads for, all on one connection."""
    with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(IDLE_STREAMS) as pool:
        streams = list(pool.map(lambda _: ReflectionStream(channel), range(IDLE_STREAMS)))
        try:
            yield channel, streams
        finally:
            for stream in streams:
                stream.end()


def require_few_open_and_the_rest_refused(streams: list[ReflectionStream]) -> None:
    opened = [stream for stream in streams if stream.answered]
    assert 1 <= len(opened) <= 8
    assert {stream.code for stream in streams if not stream.answered} == {grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_fault_slow_client_idle_reflection_streams_leave_health_its_threads(serve_ranking: Callable[..., RankingServer]):
    server = serve_ranking()
    with idle_streams(server.address) as (channel, streams):
        status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status
        assert status == health_pb2.HealthCheckResponse.SERVING
        require_few_open_and_the_rest_refused(streams)
        with RankingClient(server.address, timeout=PATIENCE) as client:
            assert client.rank(["item-1"]).items
        # One that ends makes room for another.
        next(stream for stream in streams if stream.answered).end()
        wait_until(lambda: ReflectionStream(channel).answered)


def test_fault_slow_client_idle_reflection_streams_leave_operators_theirs(serve_ranking: Callable[..., RankingServer]):
    server = serve_ranking(admin_port=0)
    address = f"127.0.0.1:{server.admin_port}"
    with idle_streams(address) as (_, streams), AdminClient(address, timeout=PATIENCE) as admin:
        assert admin.status().items == 120
        require_few_open_and_the_rest_refused(streams)


@pytest.mark.parametrize("port", ["ranking", "admin"])
def test_a_call_without_a_token_is_refused_without_waking_a_thread(
    catalogue: Catalogue, tmp_path, monkeypatch: pytest.MonkeyPatch, port: str
):
    """So that any number of them queues up nowhere."""
    settings = free_port_settings(admin_port=0, security=server_settings(tokens=token_file(tmp_path)))
    with RankingServer(catalogue.bundle, catalogue.store, settings) as server:
        address = server.address if port == "ranking" else f"127.0.0.1:{server.admin_port}"
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
            # gRPC's client has a thread of its own by now.
            with pytest.raises(grpc.RpcError):
                call(b"", timeout=PATIENCE)
            woken: list[object] = []
            submit = ThreadPoolExecutor.submit
            monkeypatch.setattr(ThreadPoolExecutor, "submit", lambda *given: woken.append(given) or submit(*given))
            for _ in range(20):
                with pytest.raises(grpc.RpcError) as raised:
                    call(b"\xff" * 1000, timeout=PATIENCE)
                assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert woken == []
            monkeypatch.undo()
