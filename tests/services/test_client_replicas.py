"""Several ranking servers behind one client: one of them stops, dies or hangs, and no call fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
from bundle_fixture import make_catalogue
from patience import PATIENCE, wait_until
from server_process import places

from llmgr_core.errors import InputError
from services.client import ClientSecurity, RankingClient, ServiceError
from services.client.addresses import channel_target, split_addresses
from services.client.calls import RetryBudget, RetryPolicy
from services.client.local_server import ServerProcess

CALLERS = 4


class Load:
    """Threads that rank one session after the other until told to stop."""

    def __init__(self, client: RankingClient) -> None:
        self._client = client
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        self.answered = 0
        self.errors: list[ServiceError] = []

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Until that many more calls have ended."""
        wanted = self.answered + more
        wait_until(lambda: self.answered + len(self.errors) >= wanted, "calls neither end nor fail")

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                assert len(self._client.rank(["item-1"], top_k=3).items) == 3
                self.answered += 1
                # Leaves the servers something of a machine that they share with this test.
                time.sleep(0.01)
            except ServiceError as error:
                self.errors.append(error)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    """Three ranking processes on one bundle and store. The last test of this file stops two of them."""
    directory = tmp_path_factory.mktemp("replicas")
    catalogue = make_catalogue(directory)
    # A drain that outlasts every patience here: nothing may hold a server that has answered its calls.
    settings = ("--set", "serve.log_successes=true", "--set", "serve.drain_s=600")
    with ExitStack() as stack:
        servers = []
        for number in range(3):
            (directory / str(number)).mkdir()
            servers.append(ServerProcess("ranking", directory / str(number), *places(catalogue), *settings))
        yield [stack.enter_context(server) for server in servers]


def addresses_of(servers: list[ServerProcess]) -> str:
    return ",".join(server.address for server in servers)


def calls_in_log(server: ServerProcess) -> int:
    return server.log().count('"RankSession"')


@contextmanager
def stopped(server: ServerProcess):
    """SIGSTOP: its connections stay, and it says nothing."""
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def duration_of_a_call(client):
    """Seconds that one call took, which must be answered with items."""
    started = time.monotonic()
    assert client.rank(["item-1"]).items
    return time.monotonic() - started


def test_fault_hang_of_a_replica_costs_a_part_of_the_deadline_only(replicas):
    patient = RetryPolicy(attempts=20, attempt_timeout=1.0)
    # Its own name: a line of an earlier test's call may come late.
    named = (("x-request-id", "may-hang"),)
    with RankingClient(addresses_of(replicas), timeout=2 * PATIENCE, retry=patient, metadata=named) as client:
        while '"may-hang"' not in replicas[0].log():
            client.rank(["item-1"])
        with stopped(replicas[0]):
            # Three calls need not meet all three: a connection that comes up late deals the turns anew.
            waited = any(duration_of_a_call(client) >= 1.0 for _ in range(30))
            assert waited, "none of the calls met the replica that hangs"


def test_a_server_that_hangs_ends_a_call_at_its_deadline(replicas):
    with RankingClient(replicas[0].address, timeout=PATIENCE) as client:
        client.rank(["item-1"])
        with stopped(replicas[0]), pytest.raises(ServiceError, match="longer timeout") as raised:
            client.rank(["item-1"], timeout=0.3)
    assert raised.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert raised.value.attempts == 1


def test_a_failed_call_names_the_id_under_which_the_servers_log_has_it(replicas):
    server = replicas[0]
    with RankingClient(server.address, timeout=PATIENCE) as client, pytest.raises(ServiceError) as raised:
        client.rank(["item-1"], top_k=5000)
    assert raised.value.request_id in server.log()
    named = (("x-request-id", "page-7"),)
    with RankingClient(server.address, timeout=PATIENCE, metadata=named) as client, pytest.raises(ServiceError) as raised:
        client.rank(["item-1"], top_k=5000)
    assert raised.value.request_id == "page-7"
    assert '"page-7"' in server.log()


def test_servers_that_are_all_gone_end_a_call_within_its_deadline_with_an_error_that_says_so():
    with RankingClient("127.0.0.1:1,127.0.0.1:2", timeout=PATIENCE) as client:
        started = time.monotonic()
        with pytest.raises(ServiceError, match="llmgr serve") as raised:
            client.rank(["item-1"])
        assert time.monotonic() - started < PATIENCE
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    assert raised.value.attempts == 4
    assert "4 attempts failed" in str(raised.value)


def test_retries_stop_when_most_calls_fail_and_come_back_with_success():
    budget = RetryBudget(tokens=10.0, per_success=0.5)
    assert [budget.take() for _ in range(6)] == [True] * 5 + [False]
    budget.succeeded()
    assert budget.take()
    assert not budget.take()


def test_addresses_are_one_target():
    assert channel_target(split_addresses("127.0.0.1:1, localhost:2")) == "ipv4:127.0.0.1:1,127.0.0.1:2"
    assert channel_target(["[::1]:1", "[fe80::1]:2"]) == "ipv6:[::1]:1,[fe80::1]:2"
    assert channel_target(["dns:///rankers:50052"]) == "dns:///rankers:50052"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("", "no address"),
        (" , ", "no address"),
        ("ranker-1:50052,ranker-2:50052", "dns:///"),
        ("127.0.0.1,127.0.0.2", "IP:PORT"),
        ("127.0.0.1:70000,127.0.0.2:1", "IP:PORT"),
        ("127.0.0.1:1,[::1]:2", "mix"),
    ],
)
def test_addresses_that_do_not_go_together_are_refused(address, words):
    with pytest.raises(InputError, match=words):
        RankingClient(address)


def test_several_addresses_behind_one_certificate_need_its_name(tmp_path):
    with pytest.raises(InputError, match="server_name"):
        RankingClient("127.0.0.1:1,127.0.0.2:1", security=ClientSecurity(authorities=tmp_path / "ca.pem"))


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("inf"), float("nan")])
def test_a_call_without_a_deadline_is_refused(timeout):
    with RankingClient("127.0.0.1:1") as client, pytest.raises(InputError, match="deadline"):
        client.rank(["a"], timeout=timeout)


def test_a_text_is_not_taken_for_a_session():
    with RankingClient("127.0.0.1:1") as client, pytest.raises(InputError, match="not a sequence"):
        client.rank("item-1")


def test_fault_kill_9_ranker_of_three_one_may_stop_and_one_die_while_no_call_fails(replicas):
    first, second, third = replicas
    before = [calls_in_log(server) for server in replicas]
    with RankingClient(addresses_of(replicas), timeout=PATIENCE) as client, Load(client) as load:
        wait_until(
            lambda: all(calls_in_log(server) >= count + 10 for server, count in zip(replicas, before, strict=True)),
            "not every replica is asked",
        )
        assert first.terminate() == 0
        load.wait_for(40)
        assert not load.errors

        second.kill()
        load.wait_for(40)
        assert not load.errors
        assert third.process.poll() is None


def test_calls_that_stay_on_this_machine_go_by_no_proxy(serve_ranking, monkeypatch):
    """gRPC takes the proxy of the environment even for loopback; in Docker every container may have one."""
    server = serve_ranking(health_port=0)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        with RankingClient(server.address, timeout=PATIENCE) as client:
            assert client.info().items
        script = Path(__file__).parents[2] / "deploy" / "health.py"
        asked = subprocess.run([sys.executable, str(script), f"127.0.0.1:{server.health_port}"], capture_output=True, text=True)
        assert asked.returncode == 0, asked.stderr
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()
