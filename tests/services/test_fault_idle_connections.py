"""Connections on which nothing happens: a peer that has vanished is let go, one that is merely quiet is kept, and a thousand of
them cost little."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from bundle_fixture import Catalogue, free_port_settings, make_catalogue
from embedding_fixture import ControlledModel, encoder_around, settings_with
from embedding_server_process import server_process
from patience import PATIENCE, wait_until
from server_process import places

from llmgr_core.data.item import Item
from services.client import EmbeddingClient, RankingClient, ServiceError, connection
from services.client.calls import RetryPolicy
from services.client.local_server import ServerProcess
from services.embedding.background import serve_in_background
from services.load.connection import PREFACE
from services.load.process_usage import memory
from services.ranking.server import RankingServer
from services.server import binding

ONCE = RetryPolicy(attempts=1)
PING_MS = 100
BOTH = pytest.mark.parametrize("service", ["ranking", "embedding"])
EMPTY_SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
SETTINGS_READ = bytes((0, 0, 0, 4, 1, 0, 0, 0, 0))
HELLO = PREFACE + EMPTY_SETTINGS
# Measured: 14 to 18 KiB.
CONNECTION_BYTES = 64 << 10


@contextlib.contextmanager
def served(service: str, catalogue: Catalogue, **settings: float) -> Iterator[str]:
    """Address of a server in this process."""
    if service == "ranking":
        with RankingServer(catalogue.bundle, catalogue.store, free_port_settings(**settings)) as server:
            yield server.address
    else:
        overrides = settings_with(*(f"serve.{key}={value}" for key, value in settings.items()))
        with serve_in_background(encoder_around(ControlledModel()), catalogue.store.with_name("own"), overrides) as listening:
            yield listening.address


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    peer = socket.create_connection((host, int(port)), timeout=2 * PATIENCE)
    peer.sendall(HELLO)
    return peer


def use(client: RankingClient | EmbeddingClient) -> None:
    if isinstance(client, RankingClient):
        assert client.rank(["item-1"]).items
    else:
        assert client.embed(Item("a", title="rose")).sequence


def client_of(service: str, address: str) -> RankingClient | EmbeddingClient:
    kind = RankingClient if service == "ranking" else EmbeddingClient
    return kind(address, timeout=PATIENCE, retry=ONCE)


def local_ports(address: str) -> set[str]:
    """Clients' ends of the connections that a server of this machine has."""
    port = f"{int(address.rpartition(':')[2]):04X}"
    tables = [Path(f"/proc/self/net/{name}").read_text() for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table.splitlines()[1:]]
    return {local for _, local, remote, state, *_ in lines if remote.endswith(f":{port}") and state == "01"}


@BOTH
def test_fault_idle_connections_whose_peer_is_silent_are_closed(service, catalogue, monkeypatch):
    """It has no call open, and answers no ping: a machine that was switched off, or a firewall that forgot the connection."""
    monkeypatch.setattr(binding, "KEEPALIVE_MS", PING_MS)
    monkeypatch.setattr(binding, "KEEPALIVE_TIMEOUT_MS", PING_MS)
    with served(service, catalogue) as address, connect(address) as silent, contextlib.suppress(ConnectionError):
        # Polite so far: gRPC would hang up after a minute on one that never says it has read the server's settings.
        assert silent.recv(1 << 16)
        silent.sendall(SETTINGS_READ)
        while silent.recv(1 << 16):
            pass


def test_fault_idle_connections_whose_server_is_silent_are_given_up(monkeypatch):
    """It took the call, and was never heard of again: the client learns so long before its deadline."""
    monkeypatch.setattr(connection, "KEEPALIVE_MS", PING_MS)
    monkeypatch.setattr(connection, "KEEPALIVE_TIMEOUT_MS", PING_MS)
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as pool:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with RankingClient(address, timeout=PATIENCE, retry=ONCE) as client:
            calling = pool.submit(client.rank, ["item-1"])
            peer, _ = silent.accept()
            with peer:
                # Its settings, and that it has read the client's.
                peer.sendall(EMPTY_SETTINGS + SETTINGS_READ)
                with pytest.raises(ServiceError) as raised:
                    calling.result()
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE


@BOTH
def test_fault_idle_connections_are_renewed_with_age(service, catalogue):
    """Also those that nobody uses: certificates are looked at when a connection begins, and then no more."""
    with served(service, catalogue, max_connection_age_s=1.0) as address, client_of(service, address) as client:
        use(client)
        before = local_ports(address)
        wait_until(lambda: before.isdisjoint(local_ports(address)))
        use(client)


@BOTH
def test_fault_idle_connections_of_clients_that_answer_pings_are_kept(service, catalogue, monkeypatch):
    """Nobody takes the server's pings for a flood, and the client's call goes over the connection that was idle."""
    monkeypatch.setattr(binding, "KEEPALIVE_MS", PING_MS)
    with served(service, catalogue) as address, client_of(service, address) as client:
        use(client)
        before = local_ports(address)
        assert before
        time.sleep(20 * PING_MS / 1e3)
        use(client)
        assert local_ports(address) == before


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[int, str]]]:
    """Process id and address of both servers."""
    directory = tmp_path_factory.mktemp("processes")
    catalogue = make_catalogue(directory)
    with (
        ServerProcess("ranking", directory, *places(catalogue)) as ranking,
        server_process(directory / "own") as (embedding, client, _),
    ):
        yield {"ranking": (ranking.process.pid, ranking.address), "embedding": (embedding.pid, client.address)}


@BOTH
@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_fault_idle_connections_by_the_hundred_cost_little_and_hold_nobody_up(processes, service, count):
    pid, address = processes[service]
    with contextlib.ExitStack() as stack, client_of(service, address) as client:
        use(client)
        before = memory(pid).resident
        peers = [stack.enter_context(connect(address)) for _ in range(count)]
        for peer in peers:
            # The server's settings: it has taken the connection.
            assert peer.recv(1 << 16)
        use(client)
        grown = memory(pid).resident - before
        assert grown < count * CONNECTION_BYTES, f"{grown / count / 1024:.0f} KiB a connection"
        with client_of(service, address) as newcomer:
            use(newcomer)


@BOTH
def test_fault_idle_connections_that_take_the_last_file_descriptor_hold_only_newcomers_up(processes, service):
    """Whoever is connected is served meanwhile, and newcomers are as soon as some of them are gone."""
    pid, address = processes[service]
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    last = max(int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir())
    with client_of(service, address) as client:
        use(client)
        try:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (last + 20, before[1]))
            with contextlib.ExitStack() as stack:
                for _ in range(60):
                    stack.enter_context(connect(address))
                wait_until(lambda: len(list(Path(f"/proc/{pid}/fd").iterdir())) >= last + 20 - 5)
                for _ in range(20):
                    use(client)
            with connect(address) as newcomer:
                assert newcomer.recv(1 << 16)
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
