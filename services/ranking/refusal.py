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


def refusing_method(
    name: str, error: RequestError, observer: CallObserver, shed: Counter
) -> grpc.RpcMethodHandler[bytes, bytes]:
    """A method that is never answered, of whatever kind: on the wire every call may end with a status and no reply.

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

    def refuse(requests: Any, context: Any, send: Callable[[None], None]) -> None:
        context.set_code(error.code)
        context.set_details(details)
        kept_back = observer.refused(name, error.code)
        if kept_back is None:
            context.set_trailing_metadata(always)
        else:
            identity = request_id(context.invocation_metadata())
            context.set_trailing_metadata((status_details, (REQUEST_ID_KEY, identity)))
            observer.log_refused(name, error.code, error.reason, identity, kept_back)
        shed.inc()
        # gRPC's way to end a call that is answered by a callback.
        send(None)

    behaviour: Any = refuse
    behaviour.experimental_non_blocking = True
    behaviour.experimental_thread_pool = AtOnce()
    return grpc.stream_stream_rpc_method_handler(refuse)
