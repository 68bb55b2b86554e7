"""Too much work, work that never ends, work nobody waits for any more."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from patience import PATIENCE, wait_until
from rounds import rounds

from llmgr_core.ranker.item_rows import ItemRows
from services.contract import ranking_service_pb2 as messages
from services.load.open_loop import run
from services.load.outcomes import Outcomes
from services.load.overload import Overload
from services.load.plan import LoadPlan, Method
from services.ranking.server import FULL_NAME
from services.ranking.watchdog import Watchdog
from services.server.admission import SHORTEST_QUEUE, BoundedPool
from services.server.errors import DETAILS_KEY
from services.server.log_budget import LogBudget
from services.server.observation import LINES_PER_SECOND

RANK_SESSION = "/llmgr.v1.RankingService/RankSession"
# On a starved machine a call may outlive its deadline; gRPC's server then resets the stream, which reads as cancelled.
GIVEN_UP = {"DEADLINE_EXCEEDED", "CANCELLED"}


@contextmanager
def pool_of_one_thread(longest_wait: float) -> Iterator[tuple[BoundedPool, Callable[[], object]]]:
    """A pool, and what takes a place in it until the block ends."""
    release = threading.Event()
    pool = BoundedPool(1, 1000, "test", longest_wait=longest_wait)
    try:
        yield pool, lambda: pool.submit(release.wait)
    finally:
        release.set()
        pool.shutdown()


def test_fault_overload_the_queue_is_as_long_as_the_wait_allows():
    with pool_of_one_thread(0.1) as (pool, take_place):
        for _ in range(50):
            take_place()
        assert not pool.full
        for _ in range(200):
            pool.served(0.001, waited=False)
        assert not pool.full
        for _ in range(200):
            pool.served(0.005, waited=False)
        # Fifty calls of 5 ms are a quarter of a second, more than the tenth that a call may wait.
        assert pool.full


def test_work_outside_the_turn_counts_where_calls_wait_for_theirs():
    with pool_of_one_thread(0.02) as (pool, take_place):
        for _ in range(SHORTEST_QUEUE + 1):
            take_place()
        for _ in range(40):
            pool.served(0.0, waited=False)
        assert not pool.full
        for _ in range(40):
            time.sleep(0.008)
            pool.served(0.0, waited=True)
        assert pool.full


def test_however_slow_rankings_are_a_few_are_always_taken_in():
    with pool_of_one_thread(0.1) as (pool, take_place):
        for _ in range(300):
            pool.served(60.0, waited=False)
        for taken_in in range(SHORTEST_QUEUE):
            assert not pool.full, taken_in
            take_place()
        assert pool.full


def test_a_flood_of_refusals_is_a_few_lines_that_say_how_many_there_were():
    moment = [0.0]
    budget = LogBudget(3, clock=lambda: moment[0])
    assert [budget.spend("full") for _ in range(5)] == [0, 0, 0, None, None]
    assert budget.spend("other") == 0
    moment[0] = 1.2
    assert [budget.spend("full") for _ in range(2)] == [2, 0]


@rounds(10)
def test_fault_hang_of_a_ranking_is_noticed_and_so_is_its_end():
    heard: list[bool] = []
    watchdog = Watchdog(1.0, heard.append)
    watchdog.start()
    try:
        # Many short ones, whatever they add up to, are no stuck one.
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            with watchdog.watched():
                time.sleep(0.005)
        assert heard == []
        with watchdog.watched():
            wait_until(lambda: heard == [True])
        wait_until(lambda: heard == [True, False])
    finally:
        watchdog.stop()


@pytest.mark.parametrize(
    "hang",
    ["time.sleep(200)", "re.match('(a+)+$', 40 * 'a' + 'b')"],
    ids=["the interpreter runs", "native code holds the interpreter"],
)
def test_fault_hang_ends_the_process_with_its_stacks_written(hang):
    program = f"""
import re, time
from services.ranking.watchdog import Watchdog
def the_ranking_that_hangs():
    {hang}
watchdog = Watchdog(0.2, lambda stuck: None, exit_after=1.5)
watchdog.start()
with watchdog.watched():
    the_ranking_that_hangs()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (1, -signal.SIGPROF)
    assert "the_ranking_that_hangs" in done.stderr


@pytest.mark.parametrize("ranks", [False, True], ids=["idle", "ranking"])
def test_a_process_that_was_paused_is_not_stuck(ranks):
    program = f"""
import time
from services.ranking.watchdog import Watchdog
watchdog = Watchdog(0.2, lambda stuck: None, exit_after=1.5)
watchdog.start()
print("ready", flush=True)
while True:
    if {ranks}:
        with watchdog.watched():
            time.sleep(0.05)
    time.sleep(0.01)
"""
    paused = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert paused.stdout.readline() == "ready\n"
        paused.send_signal(signal.SIGSTOP)
        time.sleep(3.0)
        paused.send_signal(signal.SIGCONT)
        time.sleep(1.0)
        assert paused.poll() is None
    finally:
        paused.kill()
        paused.communicate()


class Gate:
    """Where rankings wait once it is closed."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()


@pytest.fixture
def gate(monkeypatch):
    """A gate inside the scoring of the table, open at first: a server warms up before it serves."""
    gate = Gate()
    products = ItemRows.products

    def products_behind_gate(self, vector, cosine, out, between=None):
        while not gate.open.wait(0.02):
            gate.reached.set()
            if between is not None:
                between()
        return products(self, vector, cosine, out, between)

    monkeypatch.setattr(ItemRows, "products", products_behind_gate)
    yield gate
    gate.open.set()


def rank_plan(server, count: int, timeout: float, times: np.ndarray | None = None, connections: int = 2) -> LoadPlan:
    request = messages.RankSessionRequest(item_ids=["item-1", "item-2"]).SerializeToString()
    method = Method.at("RankSession", server.address, RANK_SESSION)
    times = np.zeros(count) if times is None else times
    return LoadPlan.of_one(method, times, [request], timeout=timeout, connections=connections)


@rounds(10)
def test_fault_deadline_scoring_stops_where_nobody_waits_any_more(serve_ranking, gate):
    """Not at its end: the gate stays closed."""
    server = serve_ranking()
    gate.open.clear()
    # On a busy machine a deadline may pass before the call has come so far.
    for timeout in (0.2, 2.0, 20.0):
        outcomes = run(rank_plan(server, 1, timeout))
        assert outcomes.statuses().keys() <= GIVEN_UP
        wait_until(lambda: server.ranking_pool.admitted == 0)
        if gate.reached.is_set():
            break
    assert gate.reached.is_set()
    gate.open.set()
    assert run(rank_plan(server, 3, PATIENCE)).statuses() == {"OK": 3}


@rounds(10)
def test_fault_hang_health_follows_a_ranking_that_hangs_and_the_metric_says_so(serve_ranking, gate):
    server = serve_ranking(stuck_after_s=0.1)
    with grpc.insecure_channel(server.address) as channel, ThreadPoolExecutor(1) as pool:
        health = health_pb2_grpc.HealthStub(channel)

        def status() -> int:
            return health.Check(health_pb2.HealthCheckRequest(service=FULL_NAME), timeout=PATIENCE).status

        # Its first calls may seem stuck on a busy machine.
        wait_until(lambda: status() == health_pb2.HealthCheckResponse.SERVING)
        gate.open.clear()
        hanging = pool.submit(run, rank_plan(server, 1, 4 * PATIENCE))
        assert gate.reached.wait(PATIENCE)
        wait_until(lambda: status() == health_pb2.HealthCheckResponse.NOT_SERVING)
        assert server.metrics.stuck._value.get() == 1
        gate.open.set()
        assert hanging.result().statuses() == {"OK": 1}
        wait_until(lambda: status() == health_pb2.HealthCheckResponse.SERVING)
        assert server.metrics.stuck._value.get() == 0


def test_fault_overload_is_shed_with_a_time_to_come_back_and_without_a_flood_of_lines(serve_ranking, gate, capsys):
    server = serve_ranking(max_queue=8, threads=4, retry_after_ms=70)
    gate.open.clear()
    with ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        flood = pool.submit(run, rank_plan(server, 400, 4 * PATIENCE, np.linspace(0.0, 0.5, 400)))
        wait_until(lambda: server.metrics.shed.labels("RankSession")._value.get() == 392)
        seconds = time.monotonic() - started
        gate.open.set()
        outcomes = flood.result()
    assert outcomes.statuses() == {"OK": 8, "RESOURCE_EXHAUSTED": 392}
    lines = capsys.readouterr()
    assert (lines.out + lines.err).count("RESOURCE_EXHAUSTED") <= LINES_PER_SECOND * (seconds + 2)
    # Itself again.
    wait_until(lambda: server.ranking_pool.admitted == 0)
    assert run(rank_plan(server, 4, PATIENCE)).statuses() == {"OK": 4}


@pytest.mark.parametrize("seconds", [1.5, pytest.param(30.0, marks=pytest.mark.slow)])
def test_fault_overload_leaves_goodput_and_ends_with_it(serve_ranking, seconds):
    """`llmgr bench ranking` holds the figures of the long form against their targets."""
    server = serve_ranking(max_wait_ms=100.0)
    run(rank_plan(server, 50, PATIENCE))
    closed = run(dataclasses.replace(rank_plan(server, 300, PATIENCE), in_flight=16))
    peak = 300 / closed.seconds
    stretch = Overload(peak, 0.2 * peak, multiple=3.0, before=0.5, during=seconds, after=0.5, timeout=5.0)
    request = messages.RankSessionRequest(item_ids=["item-1", "item-2"]).SerializeToString()
    method = Method.at("RankSession", server.address, RANK_SESSION)
    # The client shares this process with the server, so figures mean nothing here; what must hold is that the server answers
    # and sheds, fails at nothing else, and is as before afterwards.
    outcomes = run(stretch.plan(method, [request], np.random.default_rng(1)))
    during = outcomes.between(stretch.before, stretch.end)
    assert during.statuses().keys() <= {"OK", "RESOURCE_EXHAUSTED"} | GIVEN_UP
    assert during.ok.any()
    wait_until(lambda: server.ranking_pool.admitted == 0)
    assert run(dataclasses.replace(rank_plan(server, 50, PATIENCE), in_flight=2)).statuses() == {"OK": 50}


def test_fault_overload_a_refused_call_is_neither_read_nor_given_to_another_thread(serve_ranking, monkeypatch, capsys):
    """Bytes that are no message are refused like any others, and no pool is asked to run anything."""
    server = serve_ranking(retry_after_ms=70)
    monkeypatch.setattr(BoundedPool, "full", property(lambda pool: True))
    monkeypatch.setattr(ThreadPoolExecutor, "submit", lambda *given: pytest.fail("a thread was woken up"))
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(RANK_SESSION)
        told = []
        for _ in range(LINES_PER_SECOND * 3 + 1):
            with pytest.raises(grpc.RpcError) as raised:
                call(b"\xff" * 100_000, timeout=PATIENCE, metadata=[("x-request-id", "visit-7")])
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            told.append(dict(raised.value.trailing_metadata()))
    status = status_pb2.Status.FromString(told[-1][DETAILS_KEY])
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() == 70
    # Those that the log has a line of, and they alone, carry its id.
    assert told[0]["x-request-id"] == "visit-7"
    logged = [one for one in told if "x-request-id" in one]
    lines = capsys.readouterr()
    assert (lines.out + lines.err).count("visit-7") == len(logged)


def test_the_time_until_it_is_normal_again_is_read_off_the_outcomes():
    stretch = Overload(100.0, 50.0, before=2.0, during=2.0, after=4.0)
    due = np.arange(0.0, 8.0, 0.02)
    late = (due >= 2.0) & (due < 5.0)
    took = np.where(late, 0.3, 0.002)
    status = np.where((due >= 2.0) & (due < 4.0) & (np.arange(len(due)) % 2 == 0), 8, 0)
    outcomes = Outcomes(("RankSession",), np.zeros(len(due), dtype=int), due, due, due + took, status, 8.0, 0.0)
    figures = stretch.figures(outcomes)
    assert figures["seconds_to_normal"] == pytest.approx(1.0, abs=0.3)
    assert figures["goodput_per_s"] == pytest.approx(25.0, abs=1.0)
    assert figures["shed"]["p50_ms"] == pytest.approx(300.0)
    never = dataclasses.replace(outcomes, status=np.where(due >= 4.0, 14, status))
    assert stretch.figures(never)["seconds_to_normal"] is None
