"""Watchers of health who take nothing of what they are told: nobody else waits for them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import grpc
import pytest
from bundle_fixture import Catalogue, free_port_settings
from grpc_health.v1 import health_pb2, health_pb2_grpc
from patience import PATIENCE, wait_until
from test_fault_termination import DRAIN_S, STATUS, Watch, served
from unsent_calls import DATA, END_STREAM, UnsentCalls

from services.ranking.server import RankingServer

WATCH = "/grpc.health.v1.Health/Watch"
# More than there are threads for watchers.
UNREAD = 6
ANY_SERVICE = b"\0\0\0\0\0"


@contextlib.contextmanager
def unread_watches(address: str) -> Iterator[UnsentCalls]:
    with UnsentCalls(address, WATCH, UNREAD, window=0) as calls:
        for stream in range(1, 2 * UNREAD, 2):
            calls.send(DATA, END_STREAM, stream, ANY_SERVICE)
        calls.read()
        yield calls


def check(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        return int(reply.status)


def test_fault_slow_client_unread_watches_hold_neither_checks_nor_watchers_nor_a_stop(catalogue: Catalogue):
    with contextlib.ExitStack() as stack:
        with served("ranking", catalogue) as address:
            first = stack.enter_context(unread_watches(address))
            assert check(address) == STATUS.SERVING
            watch = Watch(stack.enter_context(grpc.insecure_channel(address)))
            wait_until(lambda: watch.told)
            # Those before have been hung up on meanwhile.
            for calls in (first, stack.enter_context(unread_watches(address))):
                stack.enter_context(calls.answering_pings())
            began = time.monotonic()
        assert time.monotonic() - began < DRAIN_S / 2
        watch.join()
        assert watch.told == [STATUS.SERVING, STATUS.NOT_SERVING]


@pytest.mark.parametrize("port", ["ranking", "health"])
def test_fault_slow_client_whoever_does_not_take_what_a_watch_says_is_hung_up_on(catalogue: Catalogue, port: str):
    with RankingServer(catalogue.bundle, catalogue.store, free_port_settings(health_port=0)) as server:
        address = server.address if port == "ranking" else f"127.0.0.1:{server.health_port}"
        with unread_watches(address) as calls:
            wait_until(lambda: calls.read() or len(calls.ended) == UNREAD, seconds=PATIENCE / 2)
