"""Starting, answering under load, stopping."""

from __future__ import annotations

import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import pytest
from bundle_fixture import free_port_settings, put
from grpc_health.v1 import health_pb2, health_pb2_grpc
from patience import PATIENCE, wait_until
from rounds import rounds

from llmgr_core.errors import LlmgrError
from services.client import RankingClient, ServiceError
from services.client.calls import RetryPolicy
from services.ranking import server as server_module
from services.ranking import service
from services.ranking.current_ranker import CurrentRanker
from services.ranking.server import FULL_NAME, RankingServer

NO_RETRIES = RetryPolicy(attempts=1)


def health_of(address: str, name: str = FULL_NAME) -> int:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE).status


@pytest.fixture
def slow_ranking(monkeypatch):
    """Rankings that last, once the test has cleared the event, until it sets it again."""
    release = threading.Event()
    release.set()
    original = service.rank_query

    def rank_slowly(*given):
        assert release.wait(4 * PATIENCE)
        return original(*given)

    monkeypatch.setattr(service, "rank_query", rank_slowly)
    yield release
    release.set()


def test_health_says_serving_for_the_server_and_the_service(serve_ranking):
    server = serve_ranking()
    assert health_of(server.address) == health_pb2.HealthCheckResponse.SERVING
    assert health_of(server.address, "") == health_pb2.HealthCheckResponse.SERVING


def test_a_port_in_use_is_an_error_that_names_the_port(serve_ranking, catalogue):
    port = serve_ranking().port
    with pytest.raises(LlmgrError, match=str(port)):
        RankingServer(catalogue.bundle, catalogue.store, free_port_settings(ranking_port=port))


def test_a_metrics_port_in_use_is_an_error_and_leaves_nothing_running(serve_ranking, catalogue):
    taken = serve_ranking(metrics_port=0).metrics_port
    before = threading.active_count()
    with pytest.raises(LlmgrError, match=str(taken)):
        RankingServer(catalogue.bundle, catalogue.store, free_port_settings(metrics_port=taken))
    wait_until(lambda: threading.active_count() <= before + 1)


def test_another_interface_than_loopback_is_refused_in_plain_text(catalogue):
    with pytest.raises(LlmgrError, match="plain text"):
        RankingServer(catalogue.bundle, catalogue.store, free_port_settings(host="0.0.0.0"))


def test_info_tells_what_is_served(serve_ranking, catalogue):
    server = serve_ranking()
    with RankingClient(server.address, timeout=PATIENCE) as client:
        info = client.info()
    assert info.model_version == server.current.ranker.bundle.version
    assert info.encoder_version == "f" * 64
    assert (info.items, info.dimensions, info.sequence) == (120, 16, 120)
    assert info.store_epoch == server.current.ranker.store_epoch != ""
    assert info.limits["max_top_k"] == 1000


def test_timing_adds_up(serve_ranking):
    with RankingClient(serve_ranking().address, timeout=PATIENCE) as client:
        timing = client.rank(["item-1"]).timing
    assert timing.total_ms >= timing.queue_ms + timing.model_ms > 0
    assert timing.store_ms == 0


def test_metrics_count_calls_by_code_and_stages(serve_ranking):
    server = serve_ranking(metrics_port=0)
    with RankingClient(server.address, timeout=PATIENCE, retry=NO_RETRIES) as client:
        client.rank(["item-1"])
        client.rank([])
        with pytest.raises(ServiceError):
            client.rank([], top_k=9999)
    page = urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics").read().decode()
    assert 'llmgr_ranking_calls_total{code="OK",method="RankSession"} 2.0' in page
    assert 'llmgr_ranking_calls_total{code="INVALID_ARGUMENT",method="RankSession"} 1.0' in page
    assert "llmgr_ranking_fallbacks_total 1.0" in page
    assert "llmgr_ranking_items 120.0" in page
    assert "llmgr_ranking_rank_seconds_count 2.0" in page


def test_fault_overload_a_full_queue_sheds_at_once_and_says_when_to_come_back(serve_ranking, slow_ranking):
    server = serve_ranking(max_queue=3, threads=2, retry_after_ms=70)
    slow_ranking.clear()
    with RankingClient(server.address, retry=NO_RETRIES, timeout=PATIENCE) as client, ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(client.rank, ["item-1"]) for _ in range(3)]
        wait_until(lambda: server.ranking_pool.admitted == 3)
        with pytest.raises(ServiceError) as raised:
            client.rank(["item-1"])
        assert not any(one.done() for one in waiting)
        assert raised.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert raised.value.retry_after == pytest.approx(0.07)
        # Health is not behind the rankings.
        assert health_of(server.address) == health_pb2.HealthCheckResponse.SERVING
        slow_ranking.set()
        assert all(len(one.result().items) == 20 for one in waiting)
        assert len(client.rank(["item-1"]).items) == 20


@rounds(10)
def test_fault_deadline_calls_that_expire_in_the_queue_give_their_place_back(serve_ranking, slow_ranking):
    server = serve_ranking(max_queue=4, threads=2)
    slow_ranking.clear()
    with RankingClient(server.address, timeout=PATIENCE, retry=NO_RETRIES) as client, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(client.rank, ["item-1"], timeout=0.2) for _ in range(4)]
        for one in waiting:
            with pytest.raises(ServiceError, match="DEADLINE_EXCEEDED"):
                one.result()
        slow_ranking.set()
        wait_until(lambda: server.ranking_pool.admitted == 0)


def test_an_unexpected_error_shows_an_id_but_never_its_text(serve_ranking, monkeypatch):
    def fail(*given):
        raise RuntimeError("secret /path/of/weights")

    server = serve_ranking()
    monkeypatch.setattr(service, "rank_query", fail)
    with (
        RankingClient(server.address, timeout=PATIENCE, metadata=[("x-request-id", "visit-7")]) as client,
        pytest.raises(ServiceError) as raised,
    ):
        client.rank(["item-1"])
    assert raised.value.code is grpc.StatusCode.INTERNAL
    assert "secret" not in str(raised.value)
    assert "visit-7" in raised.value.details


def test_stopping_lets_calls_in_flight_finish(serve_ranking, slow_ranking):
    server = serve_ranking(drain_s=600.0)
    slow_ranking.clear()
    with RankingClient(server.address, timeout=PATIENCE) as client, ThreadPoolExecutor(2) as pool:
        running = pool.submit(client.rank, ["item-1"])
        wait_until(lambda: server.ranking_pool.admitted)
        stopping = pool.submit(server.stop)
        wait_until(lambda: not server._answering)
        time.sleep(0.1)
        slow_ranking.set()
        assert len(running.result().items) == 20
        stopping.result()
        with pytest.raises(ServiceError, match="UNAVAILABLE"):
            client.rank(["item-1"])


def test_fault_termination_not_serving_is_said_before_calls_are_refused(catalogue, monkeypatch):
    pauses, go_on = [], threading.Event()

    def pause(seconds):
        pauses.append(seconds)
        assert go_on.wait(4 * PATIENCE)

    monkeypatch.setattr(server_module, "time", SimpleNamespace(sleep=pause))
    server = RankingServer(catalogue.bundle, catalogue.store, free_port_settings(not_serving_s=0.5))
    server.start()
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    try:
        wait_until(lambda: health_of(server.address) == health_pb2.HealthCheckResponse.NOT_SERVING)
        with RankingClient(server.address, timeout=PATIENCE) as client:
            assert len(client.rank(["item-1"]).items) == 20
    finally:
        go_on.set()
        stopping.join()
    assert pauses == [0.5]


def test_waiting_for_a_change_leaves_threads_to_those_who_do_not_wait(serve_ranking, monkeypatch):
    server, go_on = serve_ranking(threads=4), threading.Event()

    def wait_long(sequence, seconds):
        assert go_on.wait(4 * PATIENCE)
        return False

    monkeypatch.setattr(server.current, "wait_for", wait_long)
    with RankingClient(server.address, timeout=4 * PATIENCE, retry=NO_RETRIES) as client, ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(client.rank, ["item-1"], min_sequence=10**6) for _ in range(8)]
        wait_until(lambda: sum(one.done() for one in waiting) == 6)
        assert len(client.rank(["item-1"]).items) == 20
        go_on.set()
        codes = []
        for one in waiting:
            with pytest.raises(ServiceError) as raised:
                one.result()
            codes.append(raised.value.code)
    assert codes.count(grpc.StatusCode.FAILED_PRECONDITION) == 2
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 6


def test_a_change_that_does_not_come_is_a_failed_precondition_long_before_the_deadline(serve_ranking):
    with RankingClient(serve_ranking().address, timeout=2 * PATIENCE) as client:
        started = time.perf_counter()
        with pytest.raises(ServiceError) as raised:
            client.rank(["item-1"], min_sequence=10**6)
        seconds = time.perf_counter() - started
    assert raised.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert raised.value.reason == "SEQUENCE_NOT_REACHED"
    assert raised.value.metadata == {"sequence": "120"}
    # The second that a server waits at most, and however long a busy machine takes besides.
    assert 0.9 < seconds < PATIENCE


def test_a_change_is_waited_for_only_within_the_deadline(serve_ranking, monkeypatch):
    server, waits, remaining = serve_ranking(), [], service._remaining

    def short_of_time(context):
        # gRPC rounds a long timeout up on its way.
        assert 0.0 < remaining(context) <= 1.1 * PATIENCE
        return 0.3

    monkeypatch.setattr(service, "_remaining", short_of_time)
    monkeypatch.setattr(server.current, "wait_for", lambda sequence, seconds: waits.append(seconds))
    with RankingClient(server.address, timeout=PATIENCE) as client, pytest.raises(ServiceError) as raised:
        client.rank(["item-1"], min_sequence=10**6)
    # Told in time, so that the client knows why.
    assert waits == [pytest.approx(0.3 - service.REPLY_SECONDS)]
    assert raised.value.code is grpc.StatusCode.FAILED_PRECONDITION


def test_a_change_that_comes_while_a_request_waits_is_in_its_answer(serve_ranking, catalogue, monkeypatch):
    began, wait_for = threading.Event(), CurrentRanker.wait_for

    def wait_patiently(current, sequence, seconds):
        began.set()
        return wait_for(current, sequence, PATIENCE)

    monkeypatch.setattr(CurrentRanker, "wait_for", wait_patiently)
    with (
        catalogue.writer() as writer,
        RankingClient(serve_ranking().address, timeout=2 * PATIENCE) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(client.rank, ["item-1"], candidate_ids=["brand-new"], min_sequence=121)
        assert began.wait(PATIENCE)
        time.sleep(0.1)
        put(writer, "brand-new", seed=1000)
        ranking = waiting.result()
    assert [item.item_id for item in ranking.items] == ["brand-new"]
    assert ranking.sequence == 121
    assert ranking.timing.queue_ms > 50
