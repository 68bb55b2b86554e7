"""A call with one message takes a thread only once that message is there.

gRPC's threaded server hands a call to its threads when the headers come, and there it waits for the message for as long as its
client likes: a few calls that are opened and then left alone would take every thread. Here the message is asked for on gRPC's
own thread, which goes on meanwhile, and the call is handed over when it comes. That also wakes a thread once for a call, not
twice.

gRPC has no setting for it. What is used instead is how ``grpc._server`` hands calls over, which is the same in grpcio 1.78 and
1.85; where a release does it in another way, calls wait on threads again and the log says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import grpc
import structlog
from grpc import _server
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from services.server.errors import RequestError, overloaded
from services.server.observation import CallObserver
from services.server.request_ids import request_id
from services.server.sync_methods import refuse

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
HANDED_OVER = ("rpc_event", "state", "behavior", "argument_thunk", "request_deserializer", "response_serializer")
RECEIVING = "receive_message"
NO_FLAGS = 0
RETRY_AFTER_S = 1.0
STOPPING = RequestError(grpc.StatusCode.UNAVAILABLE, "the server is stopping; ask another, or again", "STOPPING")
NO_MESSAGE = RequestError(grpc.StatusCode.UNIMPLEMENTED, "the method takes exactly one message", "NO_MESSAGE")

log = structlog.get_logger()


class _Call:
    """gRPC's two records of a call."""

    __slots__ = ("event", "state")

    def __init__(self, event: Any, state: Any) -> None:
        self.event, self.state = event, state

    def end(self, end: Callable[[Any], object]) -> None:
        """Send what ``end`` puts on the call's context, and no message; nothing where the call has ended."""
        with self.state.condition:
            if self.active:
                self.state.context.run(end, _server._Context(self.event, self.state, None))
                _server._status(self.event, self.state, None)

    def unless_ended(self, request: Any) -> Callable[[], Any]:
        """Gives the message to a method whose turn has come; None, which runs nothing, where the caller has gone meanwhile."""

        def take() -> Any:
            with self.state.condition:
                return request if self.active else None

        return take

    @property
    def active(self) -> bool:
        return bool(_server._is_rpc_state_active(self.state))


class UnsentMessages:
    """Calls of one server whose message has not come; they hold some memory, and no thread.

    Args:
        most: beyond it the one that has waited longest is refused.
        observer: counts and logs those.
    """

    def __init__(self, most: int, observer: CallObserver | None = None) -> None:
        self._most = most
        self._observer = observer
        # In the order in which they came. Whoever takes a call out decides what becomes of it.
        self._calls: dict[_Call, None] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def before(self, pool: ThreadPoolExecutor, refuse: Callable[[Any], None] | None = None) -> ThreadPoolExecutor:
        """What gRPC is to be given in the place of a pool: it hands calls with one message over once that is there.

        Args:
            pool: where they run.
            refuse: what to do to a call's context where ``pool`` (a BoundedPool) is full by then; None asks for no bound.
        """
        if tuple(inspect.signature(_server._unary_response_in_pool).parameters) != HANDED_OVER:
            log.warning("calls_wait_for_messages_on_threads", grpc=grpc.__version__)
            return pool
        return _AfterMessage(self, pool, refuse)

    def end_all(self) -> None:
        """Refuse those that wait, once the server takes no new calls: they would hold it for all of its drain."""
        for call in list(self._calls):
            if self.take(call):
                call.end(lambda context: _refuse(context, STOPPING))

    def add(self, call: _Call) -> None:
        """A call has come, on gRPC's own thread."""
        self._calls[call] = None
        if len(self._calls) > self._most:
            longest, *_ = list(self._calls)
            if self.take(longest):
                longest.end(self._crowded_out)

    def take(self, call: _Call) -> bool:
        """Let go of a call; False where somebody else has."""
        return self._calls.pop(call, self) is None

    def _crowded_out(self, context: Any) -> None:
        error = overloaded("too many calls are open whose message has not come", RETRY_AFTER_S)
        identity = _refuse(context, error)
        if self._observer is not None:
            method = context._rpc_event.call_details.method.decode("ascii", "replace").rpartition("/")[2]
            kept_back = self._observer.refused(method, error.code)
            if kept_back is not None:
                self._observer.log_refused(method, error.code, error.reason, identity, kept_back)


class _AfterMessage(ThreadPoolExecutor):
    """Hands calls to ``pool`` when their message has come; see UnsentMessages.before."""

    def __init__(self, unsent: UnsentMessages, pool: ThreadPoolExecutor, refuse: Callable[[Any], None] | None) -> None:
        super().__init__(max_workers=1)
        self._unsent = unsent
        self._pool: Any = pool
        self._refuse = refuse
        # What gRPC waits for before it counts a call as done, which it does only for a bound that is not used here.
        self._done: Future[Any] = Future()
        self._done.set_result(None)

    def submit(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """gRPC's own thread calls this, with the call's lock held."""
        given: Any = args
        respond, event, state, behaviour, _, deserialise, serialise = given
        call = _Call(event, state)
        arrived = _server._receive_message(state, event.call, deserialise)

        def received(message: Any) -> Any:
            mine = self._unsent.take(call)
            finished = arrived(message)
            with state.condition:
                request, state.request = state.request, None
                if not mine or not call.active:
                    return finished
            try:
                if request is None:
                    call.end(lambda context: _refuse(context, NO_MESSAGE))
                elif self._refuse is not None and self._pool.full:
                    call.end(self._refuse)
                else:
                    take = call.unless_ended(request)
                    self._pool.submit(function, respond, event, state, behaviour, take, deserialise, serialise)
            except Exception:
                # This is gRPC's only thread.
                log.exception("unexpected error")
                event.call.cancel()
            return finished

        event.call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), received)
        state.due.add(RECEIVING)
        self._unsent.add(call)
        return self._done


def _refuse(context: Any, error: RequestError) -> str:
    """Put an error on a call; returns the id of the request."""
    identity = request_id(context.invocation_metadata())
    refuse(context, error, identity)
    return identity
