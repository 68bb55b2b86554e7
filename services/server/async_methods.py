"""Methods of an asyncio gRPC server: parse, answer, and turn whatever happens into a status.

``context.abort`` is not used: it raises through the handler, and a server that has aborted a call no longer stops gracefully
(grpc issue 37239). A status that is set before the handler returns has the same effect.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message

from services.server.errors import RequestError, internal_error, parse
from services.server.observation import CallObserver
from services.server.request_ids import request_id
from services.server.sync_methods import refuse

Request = TypeVar("Request", bound=Message)
Context = grpc.aio.ServicerContext[Any, Any]


class _Observed:
    """Around one call: request id, status, log line, metrics. CancelledError passes: the client has gone."""

    def __init__(self, name: str, context: Context, observer: CallObserver) -> None:
        self._name, self._context, self._observer = name, context, observer
        self.reply: Message | None = None

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        metadata = self._context.invocation_metadata()
        self._identity = request_id(metadata)
        self._trace = self._observer.started(self._name, metadata, self._identity)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        code, reason = grpc.StatusCode.CANCELLED, "CLIENT_GONE"
        if error is None:
            code, reason = grpc.StatusCode.OK, ""
        elif isinstance(error, RequestError):
            code, reason = refuse(self._context, error, self._identity)
        elif isinstance(error, Exception):
            self._observer.failed(self._name, self._identity)
            code, reason = refuse(self._context, internal_error(self._identity), self._identity)
        seconds = time.perf_counter() - self._started
        self._observer.finished(self._name, code, seconds, self._identity, reason, trace=self._trace, reply=self.reply)
        return isinstance(error, Exception)


def unary_method(
    name: str,
    request_class: type[Request],
    answer: Callable[[Request, Context], Awaitable[Message]],
    observer: CallObserver,
) -> grpc.RpcMethodHandler[bytes, bytes]:
    """A method that takes one message and gives one; ``answer`` raises RequestError to refuse."""

    async def handle(raw: bytes, context: Context) -> bytes:
        with _Observed(name, context, observer) as call:
            call.reply = await answer(parse(request_class, raw), context)
            return call.reply.SerializeToString()
        return b""

    return grpc.unary_unary_rpc_method_handler(handle)


def server_stream_method(
    name: str,
    request_class: type[Request],
    answer: Callable[[Request, Context], AsyncIterator[Message]],
    observer: CallObserver,
) -> grpc.RpcMethodHandler[bytes, bytes]:
    """A method that takes one message and gives a stream."""

    async def handle(raw: bytes, context: Context) -> AsyncIterator[bytes]:
        with _Observed(name, context, observer):
            async for reply in answer(parse(request_class, raw), context):
                yield reply.SerializeToString()

    return grpc.unary_stream_rpc_method_handler(handle)


def stream_method(
    name: str,
    answer: Callable[[AsyncIterator[bytes], Context], AsyncIterator[Message]],
    observer: CallObserver,
) -> grpc.RpcMethodHandler[bytes, bytes]:
    """A method that takes a stream and gives one; ``answer`` gets bytes, so that one bad message need not end the stream."""

    async def handle(raw: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        with _Observed(name, context, observer):
            async for reply in answer(raw, context):
                yield reply.SerializeToString()

    return grpc.stream_stream_rpc_method_handler(handle)
