"""What the metrics pages of real servers show: stages, lag, versions, and all workers on one page."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest
from bundle_fixture import ITEMS, put
from embedding_fixture import measured_service
from metrics_page import Page, series, value
from patience import PATIENCE, wait_until
from prometheus_client import CollectorRegistry
from server_process import places

from llmgr_core import __version__
from services.client import RankingClient, ServiceError
from services.client.calls import RetryPolicy
from services.client.local_server import ServerProcess
from services.observability import merged_metrics
from services.observability.merged_metrics import MergedMetrics
from services.ranking import change_follower
from services.server.observation import MetricsPage


def until(port: int, true: Callable[[Page], object]) -> Page:
    """The page once something holds on it."""
    pages: list[Page] = []

    def holds() -> object:
        pages.append(series(port))
        return true(pages[-1])

    wait_until(holds)
    return pages[-1]


def test_each_stage_of_each_ranking_is_timed(serve_ranking):
    server = serve_ranking(metrics_port=0)
    with RankingClient(server.address, timeout=PATIENCE) as client:
        timings = [client.rank(["item-1", "item-2"]).timing for _ in range(5)]
    page = series(server.metrics_port)
    for stage in ("encode", "score", "select"):
        assert value(page, "llmgr_ranking_stage_seconds_count", stage=stage) == 5
        told = sum(getattr(one, f"{stage}_ms") for one in timings) / 1e3
        assert value(page, "llmgr_ranking_stage_seconds_sum", stage=stage) == pytest.approx(told, rel=1e-6)
        assert told > 0
    assert all(one.encode_ms + one.score_ms + one.select_ms <= one.model_ms <= one.total_ms for one in timings)
    assert value(page, "llmgr_ranking_queue_seconds_count") == 5


def test_lag_is_what_the_store_has_and_rankings_do_not(serve_ranking, catalogue, monkeypatch):
    with catalogue.writer() as writer:
        port = serve_ranking(metrics_port=0).metrics_port
        page = until(port, lambda page: value(page, "llmgr_ranking_last_follow_timestamp_seconds"))
        assert value(page, "llmgr_ranking_last_follow_timestamp_seconds") == pytest.approx(time.time(), abs=600)
        assert (value(page, "llmgr_ranking_sequence_lag"), value(page, "llmgr_ranking_sequence")) == (0, ITEMS)
        looked = threading.Event()
        monkeypatch.setattr(change_follower.CurrentRanker, "follow", lambda current: looked.set())
        # The look that was under way is over.
        assert looked.wait(PATIENCE)
        for number in range(3):
            put(writer, f"new-{number}", seed=number)
        page = series(port)
        assert (value(page, "llmgr_ranking_sequence_lag"), value(page, "llmgr_ranking_sequence")) == (3, ITEMS)
        monkeypatch.undo()
        names = ("llmgr_ranking_sequence_lag", "llmgr_ranking_items")
        until(port, lambda page: [value(page, name) for name in names] == [0, ITEMS + 3])


def test_versions_follow_the_bundle(serve_ranking, catalogue):
    server = serve_ranking(metrics_port=0, bundle_poll_s=0.02)
    page = series(server.metrics_port)
    assert value(page, "llmgr_build_info", service="ranking", version=__version__) == 1
    old = server.current.ranker.version
    assert [labels["model_version"] for labels, _ in page["llmgr_model_info"]] == [old]
    catalogue.write_bundle(seed=2)
    wait_until(lambda: server.current.ranker.version != old)
    page = series(server.metrics_port)
    assert [labels["model_version"] for labels, _ in page["llmgr_model_info"]] == [server.current.ranker.version] != [old]
    assert value(page, "process_resident_memory_bytes") > 1e6


def test_a_shed_call_is_counted_under_its_method(serve_ranking, monkeypatch):
    server = serve_ranking(metrics_port=0)
    assert value(series(server.metrics_port), "llmgr_ranking_shed_total", method="RankSession") == 0
    monkeypatch.setattr(type(server.ranking_pool), "full", property(lambda pool: True))
    client = RankingClient(server.address, timeout=PATIENCE, retry=RetryPolicy(attempts=1))
    with client, pytest.raises(ServiceError, match="EXHAUSTED"):
        client.rank(["item-1"])
    page = series(server.metrics_port)
    assert value(page, "llmgr_ranking_shed_total", method="RankSession") == 1
    assert value(page, "llmgr_ranking_calls_total", code="RESOURCE_EXHAUSTED") == 1


def test_every_method_is_counted_from_zero_before_its_first_call(serve_ranking, tmp_path):
    """A rate over a series that appears with its first call misses that call."""
    page = series(serve_ranking(metrics_port=0).metrics_port)
    for method in ("RankSession", "RankSessions", "GetInfo"):
        for code in ("OK", "INTERNAL", "UNKNOWN", "DATA_LOSS"):
            assert value(page, "llmgr_ranking_calls_total", method=method, code=code) == 0
        assert value(page, "llmgr_ranking_calls_running", method=method) == 0
    with measured_service(tmp_path) as (_, _, measured):
        for method in ("EmbedItem", "EmbedItems", "GetItem", "DeleteItem", "WatchChanges"):
            assert measured("calls_total", method=method, code="OK") == 0
            assert measured("calls_running", method=method) == 0


def test_pages_of_several_processes_are_one_with_a_label_for_each(serve_ranking, monkeypatch):
    """Two real servers stand for two workers; a third has died."""
    monkeypatch.setattr(merged_metrics, "PAGE_SECONDS", PATIENCE)
    servers = [serve_ranking(metrics_port=0) for _ in range(2)]
    for calls, server in enumerate(servers, 1):
        with RankingClient(server.address, timeout=PATIENCE) as client:
            for _ in range(calls):
                client.rank(["item-1"])
    registry = CollectorRegistry()
    registry.register(MergedMetrics(lambda: {0: servers[0].metrics_port, 1: servers[1].metrics_port, 2: 1, 3: None}))
    page = MetricsPage(registry, 0)
    try:
        merged = series(page.port)
    finally:
        page.close()
    assert {labels["worker"]: up for labels, up in merged["llmgr_worker_up"]} == {"0": 1, "1": 1, "2": 0, "3": 0}
    for worker, calls in (("0", 1), ("1", 2)):
        own = {"worker": worker, "method": "RankSession"}
        assert value(merged, "llmgr_ranking_calls_total", code="OK", **own) == calls
        assert value(merged, "llmgr_ranking_call_seconds_count", **own) == calls
        assert value(merged, "llmgr_ranking_call_seconds_bucket", le="+Inf", **own) == calls
        assert value(merged, "llmgr_ranking_items", worker=worker) == ITEMS
    alone = series(servers[0].metrics_port)
    assert set(merged) - {"llmgr_worker_up"} == set(alone)


@pytest.mark.slow
def test_pages_of_workers_are_not_asked_for_through_a_proxy(serve_ranking, monkeypatch):
    server = serve_ranking(metrics_port=0)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setattr(merged_metrics, "PAGE_SECONDS", PATIENCE)
        (up, *_) = MergedMetrics(lambda: {0: server.metrics_port}).collect()
    assert [sample.value for sample in up.samples] == [1.0]


def test_several_workers_share_one_page_that_survives_the_death_of_one(catalogue, tmp_path):
    """Real processes; each call is on one page, under the worker that answered, also after a worker was killed."""
    options = (*places(catalogue), "--workers", "2", "--metrics-port", "0")
    with ServerProcess("ranking", tmp_path, *options) as server:
        (port,) = server.facts["metrics_ports"]

        def ask(calls: int) -> None:
            for _ in range(calls):
                with RankingClient(server.address, timeout=PATIENCE) as client:
                    client.rank(["item-1"])

        def answered(page: Page) -> dict[str, float]:
            ranks = [one for one in page.get("llmgr_ranking_calls_total", []) if one[0]["method"] == "RankSession"]
            return {labels["worker"]: count for labels, count in ranks if labels["code"] == "OK"}

        ask(12)
        page = series(port)
        assert sum(answered(page).values()) == 12
        assert {labels["worker"] for labels, _ in page["llmgr_model_info"]} == {"0", "1"}
        assert value(page, "llmgr_worker_up") == 2
        os.kill(server.facts["pids"][0], signal.SIGKILL)
        seen = set()
        end = time.monotonic() + 2 * PATIENCE
        while time.monotonic() < end:
            up = value(series(port), "llmgr_worker_up", worker="0")
            seen.add(up)
            if up and 0.0 in seen:
                break
            time.sleep(0.1)
        assert seen == {0.0, 1.0}
        before = answered(series(port))
        ask(4)
        page = series(port)
        assert sum(answered(page).values()) == sum(before.values()) + 4
        assert {labels["worker"] for labels, _ in page["llmgr_ranking_stage_seconds_sum"]} == {"0", "1"}
