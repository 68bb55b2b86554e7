"""How many calls reached a server, and how many of them gRPC handed to it: the rest it refused unread.

What gRPC refuses by itself (``serve.max_unread``) never reaches Python, so that no counter of ours could see it; gRPC's own
statistics (channelz) do.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

# gRPC 1.85 keeps statistics of every server; what is counted by them asks for them all the same.
KEEP_STATISTICS = ("grpc.enable_channelz", 1)

_making = threading.Lock()


class ReceivedCalls(Collector, grpc.GenericRpcHandler):
    """Counts the calls of one server, whatever their method.

    As a handler it knows no method: gRPC asks every handler in turn, and this one must be the first.

    Args:
        server_id: gRPC's own number of the server.
    """

    def __init__(self, server_id: int) -> None:
        self._server_id = server_id
        self.handed_over = 0

    @property
    def received(self) -> int:
        """Calls that began; those that wait to be handed over and those that were refused unread are among them."""
        return next((calls for server, calls in _calls_by_server(self._server_id) if server == self._server_id), 0)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> None:
        # All calls come by the same thread of gRPC.
        self.handed_over += 1

    def collect(self) -> Iterable[Metric]:
        handed_over = self.handed_over
        # The second is read later, so that a call which comes in between does not look handed over before it began.
        for name, text, calls in (
            ("received", "Calls of every method that reached gRPC", self.received),
            ("handed_over", "Calls that gRPC did not refuse unread", handed_over),
        ):
            family = CounterMetricFamily(f"llmgr_ranking_calls_{name}", text)
            family.add_metric([], calls)
            yield family


class CountedServer(NamedTuple):
    """A server, and what counts its calls."""

    server: grpc.Server
    calls: ReceivedCalls


def counted_server(
    pool: ThreadPoolExecutor, interceptors: list[grpc.ServerInterceptor], options: Sequence[tuple[str, Any]]
) -> CountedServer:
    """A threaded gRPC server whose calls are counted; arguments as of ``grpc.server``.

    No other thread may make a server of another kind meanwhile: gRPC's statistics do not tell the two apart.
    """
    with _making:
        known = {server for server, _ in _calls_by_server(0)}
        server = grpc.server(pool, interceptors=interceptors, options=[*options, KEEP_STATISTICS])
        # gRPC tells no server its number.
        calls = ReceivedCalls(max(server for server, _ in _calls_by_server(0) if server not in known))
    server.add_generic_rpc_handlers((calls,))
    return CountedServer(server, calls)


def _calls_by_server(first: int) -> Iterable[tuple[int, int]]:
    """Number of every server from ``first`` on, and the calls that reached it."""
    # Only asked for a status where gRPC's answer cannot be read, which is an exception here.
    no_call: Any = None
    while True:
        page = channelz.ChannelzServicer.GetServers(channelz_pb2.GetServersRequest(start_server_id=first), no_call)
        yield from ((one.ref.server_id, one.data.calls_started) for one in page.server)
        if page.end or not page.server:
            return
        first = page.server[-1].ref.server_id + 1
