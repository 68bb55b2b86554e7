"""Far more than a server can do: gRPC refuses it before the server has looked at it, and health and metrics stay true."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from metrics_page import series, value
from patience import PATIENCE
from rounds import rounds

from services.client import RankingClient, ServiceError
from services.client.calls import RetryPolicy
from services.contract import ranking_service_pb2 as messages
from services.load.open_loop import run
from services.load.plan import LoadPlan, Method
from services.ranking.server import FULL_NAME
from services.server.admission import BoundedPool

RANK_SESSION = "/llmgr.v1.RankingService/RankSession"
UNREAD = 4
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def slow_reader(monkeypatch):
    """Servers take in fifty calls a second, as on a machine that has too much to do."""
    full = BoundedPool.full.fget

    def full_after_a_while(pool):
        time.sleep(0.02)
        return full(pool)

    monkeypatch.setattr(BoundedPool, "full", property(full_after_a_while))


def flood(server, calls: int, seconds: float = 0.0) -> LoadPlan:
    request = messages.RankSessionRequest(item_ids=["item-1"]).SerializeToString()
    method = Method.at("RankSession", server.address, RANK_SESSION)
    return LoadPlan.of_one(method, np.linspace(0.0, seconds, calls), [request], timeout=2 * PATIENCE, connections=2)


def counter(server, name: str) -> float:
    return value(series(server.metrics_port), f"llmgr_ranking_calls_{name}_total")


@rounds(10)
def test_fault_overload_what_grpc_refuses_unread_is_refused_by_nobody_else_and_counted(serve_ranking, slow_reader):
    server = serve_ranking(max_unread=UNREAD, metrics_port=0)
    before = {name: counter(server, name) for name in ("received", "handed_over")}
    assert before["received"] == before["handed_over"] > 0
    statuses = run(flood(server, 200)).statuses()
    assert statuses.keys() == {"OK", "CANCELLED"}
    assert statuses["OK"] >= UNREAD
    taken = {name: counter(server, name) - before[name] for name in before}
    assert taken == {"received": 200, "handed_over": statuses["OK"]}
    # Itself again.
    assert run(flood(server, UNREAD)).statuses() == {"OK": UNREAD}


def test_a_health_check_is_not_taken_for_a_call_that_was_refused_unread(serve_ranking):
    server = serve_ranking(metrics_port=0)
    received = counter(server, "received")
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for _ in range(5):
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status == SERVING
    assert counter(server, "received") == counter(server, "handed_over") == received + 5


def test_the_bound_is_the_one_that_was_set(serve_ranking, slow_reader):
    server = serve_ranking(max_unread=500)
    assert run(flood(server, 100)).statuses() == {"OK": 100}


def test_fault_overload_health_answers_on_a_port_of_its_own(serve_ranking, slow_reader):
    server = serve_ranking(max_unread=UNREAD, health_port=0)
    with grpc.insecure_channel(f"127.0.0.1:{server.health_port}") as channel, ThreadPoolExecutor(1) as pool:
        health = health_pb2_grpc.HealthStub(channel)

        def status(service: str = "") -> int:
            return health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE).status

        flooding = pool.submit(run, flood(server, 2000, 2.0))
        checks = 0
        while not flooding.done() or not checks:
            assert status() == status(FULL_NAME) == SERVING
            checks += 1
            time.sleep(0.05)
        assert "CANCELLED" in flooding.result().statuses()
        server._drain(True)
        assert status() == status(FULL_NAME) == NOT_SERVING
        server._drain(False)
        assert status() == SERVING


@rounds(10)
def test_fault_overload_a_client_comes_back_after_its_call_was_refused_unread(serve_ranking, slow_reader):
    server = serve_ranking(max_unread=UNREAD)

    def failures(policy: RetryPolicy) -> list[ServiceError]:
        with RankingClient(server.address, timeout=2 * PATIENCE, retry=policy) as client, ThreadPoolExecutor(50) as pool:

            def call(_: int) -> ServiceError | None:
                try:
                    client.rank(["item-1"])
                except ServiceError as error:
                    return error
                return None

            assert call(0) is None
            return [error for error in pool.map(call, range(50)) if error is not None]

    refused = failures(RetryPolicy(attempts=1))
    assert refused
    assert {error.code for error in refused} == {grpc.StatusCode.CANCELLED}
    assert all(error.refused_unread and error.exit_code == 3 for error in refused)
    # Pauses of seconds: the retries come one by one, and their budget suffices.
    assert failures(RetryPolicy(attempts=10, first_pause=4.0, longest_pause=8.0)) == []
