"""Waiting for what a server does by itself, on machines that may be busy with other work."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from services.client import RankedSession, RankingClient, ServiceError

# Seconds that any one call may take here. Nothing is expected to need them: how fast things are is for the benchmarks.
PATIENCE = 60.0
# The system gives the ports above these to connections, and so may take one that was free a moment ago.
PORTS = range(20_000, 32_000)


def wait_until(condition: Callable[[], object], message: str = "it did not happen", seconds: float = 2 * PATIENCE) -> None:
    """Return as soon as something is true; fail where it does not become so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, message
        time.sleep(0.01)


def rank_from(client: RankingClient, sequence: int, item_ids: Sequence[str] = ("item-1",), **request: Any) -> RankedSession:
    """The first ranking that knows of a change: a server waits a second for it, then says that it does not know of it yet."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return client.rank(item_ids, min_sequence=sequence, **request)
        except ServiceError as error:
            if error.reason != "SEQUENCE_NOT_REACHED" or time.monotonic() > end:
                raise


def free_port() -> int:
    """A port of loopback for a server that is started, or started again, later."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
