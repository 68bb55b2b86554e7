"""Methods of a threaded gRPC server: parse, answer, and turn whatever happens into a status."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from services.server.errors import DETAILS_KEY, RequestError, internal_error, parse
from services.server.observation import CallObserver
from services.server.request_ids import REQUEST_ID_KEY, request_id

Request = TypeVar("Request", bound=Message)


def unary_method(
    name: str,
    request_class: type[Request],
    answer: Callable[[Request, grpc.ServicerContext], Message],
    observer: CallObserver,
) -> grpc.RpcMethodHandler[bytes, bytes]:
    """A method that takes one message and gives one.

    Args:
        name: as in the .proto file.
        request_class: what the request is parsed as.
        answer: makes the reply; raises RequestError to refuse.
        observer: logs and counts the call.
    """

    def handle(raw: bytes, context: grpc.ServicerContext) -> bytes:
        started = time.perf_counter()
        metadata = context.invocation_metadata()
        identity = request_id(metadata)
        trace = observer.started(name, metadata, identity)
        code, reason, reply = grpc.StatusCode.OK, "", None
        try:
            reply = answer(parse(request_class, raw), context)
            return reply.SerializeToString()
        except RequestError as error:
            code, reason = refuse(context, error, identity)
        except Exception:
            observer.failed(name, identity)
            code, reason = refuse(context, internal_error(identity), identity)
        finally:
            observer.finished(name, code, time.perf_counter() - started, identity, reason, trace=trace, reply=reply)
        return b""

    return grpc.unary_unary_rpc_method_handler(handle)


def refuse(context: Any, error: RequestError, identity: str) -> tuple[grpc.StatusCode, str]:
    """Put an error's status and details on a call; works for both kinds of context. The method then returns as usual."""
    context.set_code(error.code)
    context.set_details(error.message)
    context.set_trailing_metadata(((DETAILS_KEY, error.details()), (REQUEST_ID_KEY, identity)))
    return error.code, error.reason
