"""The standard health service of a threaded server.

Telling a watcher something lasts until its client's flow control lets it through, which is up to that client. gRPC's own
service tells all of them while it holds the lock that every check needs: one watcher who takes nothing would end all health
checks, and hold up whoever says that health has changed. Here watchers are told on threads of their own, and hung up on where
they do not take it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from services.server.message_first import UnsentMessages

THREADS = 4
# A watcher that does not take two bytes within this time is hung up on.
LONGEST_S = 2.0
OVERALL = ""
REPLY = health_pb2.HealthCheckResponse


class SyncHealth:
    """Health of a threaded server: NOT_SERVING until told otherwise.

    Args:
        server: not started yet.
        full_name: service that is asked for, beside "".
        unsent: where calls wait for their message.
    """

    def __init__(self, server: grpc.Server, full_name: str, unsent: UnsentMessages) -> None:
        self._statuses = dict.fromkeys((OVERALL, full_name), REPLY.NOT_SERVING)
        self._watches: set[_Watch] = set()
        self._ending = False
        self._pool = ThreadPoolExecutor(THREADS, "watches")

        # gRPC notes the threads on the function, which a bound method does not let it.
        def watch(request: Any, context: Any, send: Callable[[Any], None]) -> None:
            self._watch(request.service, context, send)

        marked: Any = watch
        marked.experimental_non_blocking = True
        marked.experimental_thread_pool = unsent.before(self._pool)
        read, written = health_pb2.HealthCheckRequest.FromString, REPLY.SerializeToString
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, read, written),
            "Watch": grpc.unary_stream_rpc_method_handler(marked, read, written),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(health.SERVICE_NAME, handlers),))

    def set_serving(self, serving: bool) -> None:
        """What checks say from now on, and watchers are told; waits for none of them."""
        for name in self._statuses:
            self._statuses[name] = REPLY.SERVING if serving else REPLY.NOT_SERVING
        self._go_on()

    def end_watches(self) -> None:
        """Let go of those who watch, each once it knows how things stand, when the server takes no new calls: their streams
        would hold it for all of its drain.
        """
        self._ending = True
        self._go_on()

    def hang_up(self) -> None:
        """End the watches of those who have not yet taken what they were told."""
        for watch in list(self._watches):
            if watch.being_told:
                watch.context.cancel()

    def close(self) -> None:
        """Let go of the threads, after the server has stopped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check(self, request: Any, context: grpc.ServicerContext) -> Any:
        status = self._statuses.get(request.service)
        if status is None:
            context.set_code(grpc.StatusCode.NOT_FOUND)
        return REPLY(status=status)

    def _watch(self, service: str, context: Any, send: Callable[[Any], None]) -> None:
        watch = _Watch(service, context, send)
        self._watches.add(watch)
        if not context.add_callback(lambda: self._watches.discard(watch)):
            self._watches.discard(watch)
        self._look_at(watch)

    def _go_on(self) -> None:
        for watch in list(self._watches):
            self._pool.submit(self._look_at, watch)

    def _look_at(self, watch: _Watch) -> None:
        """Bring a watch up to date, on a thread that may have to wait for it."""
        # One thread for a watch at a time: it sees to what comes up while it tells the watcher something.
        if not watch.begin():
            return
        while watch.go_on():
            status = self._statuses.get(watch.service, REPLY.SERVICE_UNKNOWN)
            if status != watch.told:
                watch.tell(status)
                watch.begin()
            elif self._ending and watch in self._watches:
                self._watches.discard(watch)
                # None is how a method that answers by callback ends its stream.
                watch.send(None)


class _Watch:
    """One watcher.

    Attributes:
        told: what it was told last.
        being_told: it has not yet taken that.
    """

    def __init__(self, service: str, context: Any, send: Callable[[Any], None]) -> None:
        self.service, self.context, self.send = service, context, send
        self.told: int | None = None
        self.being_told = False
        self._lock = threading.Lock()
        self._asked = self._busy = False

    def tell(self, status: int) -> None:
        """Wait until it has taken it, or was hung up on."""
        self.told, self.being_told = status, True
        too_long = threading.Timer(LONGEST_S, self.context.cancel)
        too_long.start()
        self.send(REPLY(status=status))
        too_long.cancel()
        self.being_told = False

    def begin(self) -> bool:
        """Ask for a look at it; False where somebody is at it already, and will look again."""
        with self._lock:
            self._asked = True
            if self._busy:
                return False
            self._busy = True
            return True

    def go_on(self) -> bool:
        """Whether a look was asked for since the last one; else whoever is at it leaves it."""
        with self._lock:
            self._busy, self._asked = self._asked, False
            return self._busy
