"""Letting calls in by their bearer token, before their message is read and before they take a place in any queue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

import grpc

from services.security.scopes import required_scope
from services.security.tokens import Caller, TokenFile
from services.server.errors import RequestError
from services.server.observation import CallObserver
from services.server.refusal import ended_at_once
from services.server.request_context import set_caller
from services.server.request_ids import request_id
from services.server.sync_methods import refuse

AUTHORIZATION_KEY = "authorization"
SCHEME = "bearer"

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
Metadata = Iterable[tuple[str, str | bytes]] | None


class Gate:
    """Decides whether a call may be made.

    Args:
        tokens: who is known.
        observer: logs and counts the calls that are refused.
    """

    def __init__(self, tokens: TokenFile, observer: CallObserver) -> None:
        self._tokens = tokens
        self._observer = observer

    def refusal(self, method: str, metadata: Metadata) -> Callable[[Any], None] | None:
        """What to do to a call's context to refuse it; None where it may go on.

        Args:
            method: full path.
            metadata: what the caller sent.
        """
        try:
            caller = self.admit(method, metadata)
            set_caller(None if caller is None else caller.name)
        except RequestError as error:
            refused = error
        else:
            return None

        def answer(context: Any) -> None:
            name, identity = method.rpartition("/")[2], request_id(metadata)
            code, reason = refuse(context, refused, identity)
            # Not timed: callers without a token would make all calls look fast.
            kept_back = self._observer.refused(name, code)
            if kept_back is not None:
                self._observer.log_refused(name, code, reason, identity, kept_back)

        return answer

    def admit(self, method: str, metadata: Metadata) -> Caller | None:
        """Who calls; None for a method that is open to everybody.

        Raises:
            RequestError: UNAUTHENTICATED without a known token, PERMISSION_DENIED with one of too small a scope.
        """
        required = required_scope(method)
        if required is None:
            return None
        sent = [value for key, value in metadata or () if key == AUTHORIZATION_KEY]
        if not sent:
            raise _unauthenticated("the call has no bearer token (metadata key authorization)", "TOKEN_MISSING")
        caller = None
        if len(sent) == 1 and isinstance(sent[0], str):
            scheme, _, token = sent[0].partition(" ")
            caller = self._tokens.caller(token.strip()) if scheme.lower() == SCHEME else None
        if caller is None:
            raise _unauthenticated("the bearer token is not known here", "TOKEN_UNKNOWN")
        if caller.scope < required:
            raise RequestError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"the token's scope is {caller.scope.name.lower()}; this method needs {required.name.lower()}",
                "SCOPE_TOO_SMALL",
                metadata={"scope": required.name.lower()},
            )
        return caller


class SyncGate(grpc.ServerInterceptor):
    """The gate of a threaded server."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Handler | None], handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        refuse_call = self._gate.refusal(handler_call_details.method, handler_call_details.invocation_metadata)
        # On gRPC's own thread, so that those without a token, however many, stand in nobody's way.
        return handler if refuse_call is None else ended_at_once(refuse_call)


class AsyncGate(grpc.aio.ServerInterceptor):
    """The gate of an asyncio server."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        refuse_call = self._gate.refusal(handler_call_details.method, handler_call_details.invocation_metadata)
        if refuse_call is None:
            return handler

        async def answer(requests: Any, context: Any) -> AsyncIterator[bytes]:
            refuse_call(context)
            return
            yield b""

        return grpc.stream_stream_rpc_method_handler(answer)


def _unauthenticated(message: str, reason: str) -> RequestError:
    return RequestError(grpc.StatusCode.UNAUTHENTICATED, message, reason)
