"""A real Redis server that can die, and the two sides of a replication around it."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bundle_fixture import FINGERPRINT, vector_of
from patience import PATIENCE, free_port, wait_until
from prometheus_client import CollectorRegistry

from llmgr_core.settings.replication import ReplicationSettings
from llmgr_core.store import EmbeddedText, EmbeddingStore, Put, StoreWriter
from services.replication.metrics import PublisherMetrics, ReplicaMetrics
from services.replication.publisher import Publisher
from services.replication.replica import Replica


class RedisServer:
    """redis-server on a loopback port of its own.

    Args:
        directory: its data and its log.
        options: further words of its command line.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory, self.options = directory, options
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        command += ["--save", "", *self.options]
        with (self.directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self.answers, "Redis did not start")

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
                connection.sendall(b"PING\r\n")
                reply = connection.recv(64)
                return reply.startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def command(self, *words: str) -> None:
        import redis

        with redis.Redis.from_url(self.url) as link:
            link.execute_command(*words)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis without a memory on disk: what it holds is lost whenever it dies."""
    require_redis()
    with running(RedisServer(tmp_path / "redis")) as server:
        yield server


def require_redis() -> None:
    pytest.importorskip("redis", reason="needs the extra redis: pip install 'llmgr[redis]'")
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server (apt-get install redis-server)")


@contextmanager
def running(server: RedisServer) -> Iterator[RedisServer]:
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Follower:
    """A publisher or a replica in a thread."""

    def __init__(self, what: Any, registry: CollectorRegistry) -> None:
        self.what, self.registry = what, registry
        self.broken: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.what.run()
        except BaseException as error:
            self.broken.append(error)
            raise

    def sample(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def stop(self) -> None:
        self.what.stop()
        self._thread.join()
        self.what.close()
        assert not self.broken


class Replication:
    """One published store and its replicas, stopped together.

    Args:
        url: address of Redis.
        settings: of section [replication].
    """

    def __init__(self, url: str, **settings: Any) -> None:
        values = {"redis": url, "longest_backoff_s": 0.2, "poll_ms": 5.0, "lease_s": 60.0, "timeout_s": 2.0}
        self.settings = ReplicationSettings.model_validate(values | settings)
        self.followers: list[Follower] = []

    def publish(self, store: Path) -> Follower:
        registry = CollectorRegistry()
        return self._started(Publisher(store, self.settings, PublisherMetrics(registry)), registry)

    def follow(self, store: Path, **options: Any) -> Follower:
        """Start a replica and wait until it has a store.

        LMDB lets one process open a file once: nothing else here may open a replica's file before the replica itself has, so a
        test that makes it fetch a copy waits for the count of copies before it looks.
        """
        registry, ready = CollectorRegistry(), threading.Event()
        replica = Replica(store, self.settings, ReplicaMetrics(registry), lambda _: ready.set(), **options)
        follower = self._started(replica, registry)
        assert ready.wait(2 * PATIENCE), "no store came"
        return follower

    def pair(self, source: Path, replica: Path) -> tuple[Follower, Follower]:
        """A publisher and a replica of its store, once the first copy stands there."""
        publisher, follower = self.publish(source), self.follow(replica)
        wait_until(lambda: is_copy(replica, source), "no first copy")
        return publisher, follower

    def stop(self, follower: Follower) -> None:
        self.followers.remove(follower)
        follower.stop()

    def close(self) -> None:
        while self.followers:
            self.stop(self.followers[-1])

    def _started(self, what: Any, registry: CollectorRegistry) -> Follower:
        follower = Follower(what, registry)
        self.followers.append(follower)
        return follower


@pytest.fixture
def replication(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Replication]]:
    """Makes replications through ``redis`` that look more often than usual, and stops them after the test."""
    monkeypatch.setattr("services.replication.replica.WAIT_MS", 50)
    monkeypatch.setattr("services.replication.publisher.BEAT_SECONDS", 0.1)
    made: list[Replication] = []

    def make(**settings: Any) -> Replication:
        made.append(Replication(redis.url, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def insert(writer: StoreWriter, first: int, count: int, prefix: str = "new") -> int:
    """Insert items in one durable write; returns the newest sequence."""
    texts = [EmbeddedText.of(FINGERPRINT, f"{prefix} {number}", vector_of(number)) for number in range(first, first + count)]
    puts = [Put(f"{prefix}-{first + place}", b"{}", (text,)) for place, text in enumerate(texts)]
    return max(written.sequence for written in writer.write(puts))


def contents(path: Path) -> dict[str, Any]:
    """All that readers of a store can learn from it, as hashes."""
    with EmbeddingStore.open(path) as store, store.transaction() as transaction:
        rows = {}
        for name in ("vectors", "items", "changes"):
            digest = hashlib.sha256()
            for key, value in transaction.cursor(db=store.database(name)):
                digest.update(bytes(key) + b"|" + bytes(value))
            rows[name] = digest.hexdigest()
        described = {"active": store.active_fingerprint(), "encoders": store.encoders(), "counts": store.counts()}
        return {"epoch": store.epoch, "sequence": store.newest_in(transaction), **rows, **described}


def is_copy(replica: Path, source: Path) -> bool:
    return (replica / "data.mdb").is_file() and contents(replica) == contents(source)
