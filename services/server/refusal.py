"""Refusing a call that there is no time for, in as little work as gRPC's Python server allows.

A refusal must not take the time that admitted calls need. So the request is never read, no thread is woken up, and the status
with its google.rpc details is serialised once, when the server starts.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import grpc
from prometheus_client import Counter

from services.server.errors import DETAILS_KEY, RequestError
from services.server.observation import CallObserver
from services.server.request_ids import REQUEST_ID_KEY, request_id

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class AtOnce(ThreadPoolExecutor):
    """Runs what it is given on the thread that gives it; for handlers that never wait.

    gRPC holds the call's condition and the server's lock meanwhile, both of which one thread may take again.
    """

    def __init__(self) -> None:
        super().__init__(max_workers=1)

    def submit(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        future: Future[Result] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


AT_ONCE = AtOnce()


def ended_at_once(end: Callable[[Any], None]) -> grpc.RpcMethodHandler[Any, Any]:
    """A method of whatever kind that reads nothing and has no reply: on the wire every call may end with a status alone.

    Args:
        end: puts status and trailing metadata on the call's context; it must not wait, for it runs on gRPC's own thread.
    """

    def behaviour(requests: Any, context: Any, send: Callable[[None], None]) -> None:
        end(context)
        # gRPC's way to end a call that is answered by a callback.
        send(None)

    marked: Any = behaviour
    marked.experimental_non_blocking = True
    marked.experimental_thread_pool = AT_ONCE
    return grpc.stream_stream_rpc_method_handler(marked)


def refusal_of(name: str, error: RequestError, observer: CallObserver, shed: Counter | None = None) -> Callable[[Any], None]:
    """What to do to the context of a call to refuse it.

    Only those calls that the log has a line of get a request id, and none is traced: under overload either would cost more than
    the refusal itself.

    Args:
        name: as in the .proto file.
        error: what callers are told.
        observer: counts the calls, and logs a few of them.
        shed: counts them too.
    """
    details = error.message.encode()
    status_details = (DETAILS_KEY, error.details())
    always = (status_details,)

    def refuse(context: Any) -> None:
        context.set_code(error.code)
        context.set_details(details)
        kept_back = observer.refused(name, error.code)
        if kept_back is None:
            context.set_trailing_metadata(always)
        else:
            identity = request_id(context.invocation_metadata())
            context.set_trailing_metadata((status_details, (REQUEST_ID_KEY, identity)))
            observer.log_refused(name, error.code, error.reason, identity, kept_back)
        if shed is not None:
            shed.inc()

    return refuse
