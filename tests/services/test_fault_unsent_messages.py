"""Calls that are opened and whose message does not come: they hold no thread that others need."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from patience import PATIENCE, wait_until
from unsent_calls import DATA, END_STREAM, UnsentCalls

from services.client import RankingClient
from services.client.admin_client import AdminClient
from services.client.calls import RetryPolicy
from services.contract import ranking_service_pb2 as messages
from services.ranking import service
from services.ranking.server import RankingServer
from services.server import message_first
from services.server.message_first import UnsentMessages

RANK = "/llmgr.v1.RankingService/RankSession"
BATCH = "/llmgr.v1.RankingService/RankSessions"
STATUS = "/llmgr.v1.AdminService/GetStatus"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
Serve = Callable[..., RankingServer]
# More than a server has threads of any kind.
CALLS = 40


def unsent(server: RankingServer) -> float:
    return server.registry.get_sample_value("llmgr_ranking_calls_unsent") or 0.0


def ended_with(server: RankingServer, code: str, method: str = "RankSession") -> float:
    return server.registry.get_sample_value("llmgr_ranking_calls_total", {"method": method, "code": code}) or 0.0


def is_serving(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def rank(server: RankingServer) -> int:
    with RankingClient(server.address, timeout=PATIENCE, retry=RetryPolicy(attempts=1)) as client:
        return len(client.rank(["item-1"]).items)


def message() -> bytes:
    body = messages.RankSessionRequest(item_ids=["item-1"]).SerializeToString()
    return b"\0" + len(body).to_bytes(4) + body


@pytest.fixture
def held_rankings(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Rankings wait while it is clear."""
    go_on, real = threading.Event(), service.rank_query
    go_on.set()

    def wait_first(*given: object) -> object:
        assert go_on.wait(4 * PATIENCE)
        return real(*given)

    monkeypatch.setattr(service, "rank_query", wait_first)
    yield go_on
    go_on.set()


@pytest.mark.parametrize("path", [RANK, BATCH, CHECK, WATCH])
def test_fault_slow_client_calls_without_a_message_leave_others_their_threads(serve_ranking: Serve, path: str):
    server = serve_ranking(threads=4, max_queue=4)
    with UnsentCalls(server.address, path, CALLS):
        wait_until(lambda: unsent(server) == CALLS, seconds=PATIENCE / 2)
        assert rank(server) == 20
        assert is_serving(server.address)
        wait_until(lambda: server.ranking_pool.admitted + server.batch_pool.admitted == 0)
    # And the memory is given back.
    wait_until(lambda: unsent(server) == 0)


def test_fault_slow_client_calls_without_a_message_leave_operators_and_balancers_theirs(serve_ranking: Serve):
    server = serve_ranking(admin_port=0, health_port=0)
    admin, health = (f"127.0.0.1:{port}" for port in (server.admin_port, server.health_port))
    with UnsentCalls(admin, STATUS, CALLS), UnsentCalls(health, CHECK, CALLS) as at_health:
        at_health.read()
        with AdminClient(admin, timeout=PATIENCE) as client:
            assert client.status().items == 120
        assert is_serving(health)


def test_fault_slow_client_of_too_many_calls_without_a_message_the_oldest_are_refused(serve_ranking: Serve):
    server = serve_ranking(max_unsent=8)
    with UnsentCalls(server.address, RANK, 8) as calls:
        wait_until(lambda: unsent(server) == 8)
        calls.open(12)
        wait_until(lambda: calls.read() or len(calls.ended) == 12)
        assert calls.ended == set(range(1, 25, 2))
        assert (unsent(server), ended_with(server, "RESOURCE_EXHAUSTED")) == (8, 12)
        assert rank(server) == 20
        # Those that were kept are answered; another one made room for the ranking.
        calls.send(DATA, END_STREAM, 39, message())
        wait_until(lambda: calls.read() or 39 in calls.ended)
        assert calls.statuses[39] == 0


def test_a_message_that_comes_late_and_in_pieces_is_answered(serve_ranking: Serve):
    server, sent = serve_ranking(), message()
    with UnsentCalls(server.address, RANK, 1) as calls:
        for piece in (sent[:3], sent[3:9]):
            calls.send(DATA, 0, 1, piece)
            calls.read()
            assert unsent(server) == 1
        calls.send(DATA, END_STREAM, 1, sent[9:])
        wait_until(lambda: calls.read() or 1 in calls.ended)
        assert (calls.statuses[1], unsent(server), ended_with(server, "OK")) == (0, 0, 1)


def test_a_call_that_ends_without_a_message_is_told_so(serve_ranking: Serve):
    server = serve_ranking()
    with UnsentCalls(server.address, RANK, 1) as calls:
        calls.send(DATA, END_STREAM, 1, b"")
        wait_until(lambda: calls.read() or 1 in calls.ended)
        assert calls.statuses[1] == grpc.StatusCode.UNIMPLEMENTED.value[0]
        assert unsent(server) == 0


def test_fault_overload_messages_that_come_at_once_meet_the_same_bound(serve_ranking: Serve, held_rankings: threading.Event):
    """Their calls were opened while there was room."""
    server = serve_ranking(max_queue=3, threads=2)
    with UnsentCalls(server.address, RANK, 10) as calls:
        wait_until(lambda: unsent(server) == 10)
        held_rankings.clear()
        for stream in range(1, 20, 2):
            calls.send(DATA, END_STREAM, stream, message())
        wait_until(lambda: calls.read() or len(calls.ended) == 7)
        assert server.ranking_pool.admitted == 3
        held_rankings.set()
        wait_until(lambda: calls.read() or len(calls.ended) == 10)
        codes = sorted(calls.statuses.values())
        assert codes == [0] * 3 + [grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]] * 7
        assert ended_with(server, "RESOURCE_EXHAUSTED") == 7


def test_where_grpc_hands_calls_over_in_another_way_they_wait_on_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(message_first, "HANDED_OVER", ("event",))
    with ThreadPoolExecutor(1) as pool:
        assert UnsentMessages(1).before(pool) is pool
