"""How many calls are taken in, and on which threads they run.

A threaded gRPC server puts every call into one unbounded queue. Here each kind of call has a pool of its own with a bound, so
that batches, long reflection streams and health checks never stand in the way of a ranking, and a call beyond the bound is
refused at once, on gRPC's own thread (see refusal.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import grpc

from services.server.message_first import UnsentMessages
from services.server.refusal import ended_at_once

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[bytes, bytes]

# So many calls are always taken in, whatever they were thought to take.
SHORTEST_QUEUE = 4
LEARNED_FROM_ONE = 0.05

# gRPC runs the look-up of a handler and the handler itself in one context, on different threads.
_arrival: ContextVar[float] = ContextVar("arrival")


def seconds_since_arrival() -> float:
    """Time since the call that is being handled was taken in; 0 outside one."""
    now = time.perf_counter()
    return now - _arrival.get(now)


class BoundedPool(ThreadPoolExecutor):
    """Threads with a bound on the calls that wait for them or run.

    The bound is a number and, where ``longest_wait`` is given, a time: a call that would have to wait longer than that behind
    those before it is better refused now than answered when nobody waits any more. How long each takes is learned from those
    that were answered, so that the queue is short where a ranking is slow, whatever the table's size and the machine.

    Args:
        threads: how many calls run at a time.
        bound: how many calls are taken in before ``full`` says no.
        name: shows in the threads' names.
        longest_wait: seconds; None knows no such bound.
    """

    def __init__(self, threads: int, bound: int, name: str, longest_wait: float | None = None) -> None:
        super().__init__(max_workers=threads, thread_name_prefix=name)
        self._bound = bound
        self._longest_wait = longest_wait
        self._seconds_each = 0.0
        self._served_at = time.perf_counter()
        self._admitted = 0
        self._counting = threading.Lock()

    @property
    def admitted(self) -> int:
        """Calls that wait or run."""
        return self._admitted

    @property
    def full(self) -> bool:
        if self._admitted >= self._bound:
            return True
        if self._longest_wait is None or self._admitted < SHORTEST_QUEUE:
            return False
        return self._admitted * self._seconds_each > self._longest_wait

    def served(self, seconds: float, *, waited: bool) -> None:
        """Learn how long one call keeps the others waiting.

        Args:
            seconds: from its turn to its end.
            waited: it had to wait for its turn. Then what passed since the last one ended is what each costs, with all the work
                around it that calls do outside their turn.
        """
        now = time.perf_counter()
        if waited:
            seconds = max(seconds, now - self._served_at)
        self._served_at = now
        # Racing updates lose one of many samples.
        self._seconds_each += LEARNED_FROM_ONE * (seconds - self._seconds_each)

    def submit(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        with self._counting:
            self._admitted += 1
        try:
            future = super().submit(function, *args, **kwargs)
        except BaseException:
            self._leave(None)
            raise
        # The future ends however the call ends, also where gRPC drops it because its deadline passed in the queue.
        future.add_done_callback(self._leave)
        return future

    def _leave(self, future: Future[Any] | None) -> None:
        with self._counting:
            self._admitted -= 1


@dataclass(frozen=True)
class BoundedMethod:
    """A method, the pool it runs on, and what is done to the context of a call where that pool is full."""

    handler: Handler
    pool: BoundedPool
    refuse: Callable[[Any], None]


class BoundedMethods(grpc.GenericRpcHandler):
    """Looks up the methods of one service by path; gRPC calls it on its own thread, before any queue.

    Args:
        full_name: of the service, as in the .proto file.
        methods: by name.
        unsent: where calls with one message wait for that; needed for such methods only.
    """

    def __init__(self, full_name: str, methods: dict[str, BoundedMethod], unsent: UnsentMessages | None = None) -> None:
        self._methods = {
            f"/{full_name}/{name}": (method.pool, method.handler, ended_at_once(method.refuse))
            for name, method in methods.items()
        }
        for method in methods.values():
            run_on(method.handler, method.pool if unsent is None else unsent.before(method.pool, method.refuse))

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        method = self._methods.get(handler_call_details.method)
        if method is None:
            return None
        pool, handler, refusal = method
        _arrival.set(time.perf_counter())
        return refusal if pool.full else handler


def run_on(handler: Handler, pool: ThreadPoolExecutor) -> None:
    """Have gRPC run a method, unary or a stream both ways, on this pool instead of the server's own."""
    behaviour: Any = handler.stream_stream if handler.request_streaming else handler.unary_unary
    behaviour.experimental_thread_pool = pool
