"""Refusing a request: a gRPC status with google.rpc details, in words that were written for the caller.

An exception's own text never reaches a client: it may hold paths, item texts or weights' names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "llmgr"
DETAILS_KEY = "grpc-status-details-bin"
# Statuses for which the server is to blame.
SERVER_FAULTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}

MessageType = TypeVar("MessageType", bound=Message)


class RequestError(Exception):
    """The answer to a request that is not served.

    Args:
        code: gRPC status.
        message: for the person who reads the client's log.
        reason: for programs, in capitals (google.rpc.ErrorInfo); says more than the code.
        field: the request's field that is wrong (google.rpc.BadRequest), for example "item.title".
        retry_after: seconds after which to try again (google.rpc.RetryInfo).
        metadata: facts for programs beside the reason.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        reason: str,
        *,
        field: str = "",
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.field = field
        self.retry_after = retry_after
        self.metadata = dict(metadata or {})

    def details(self) -> bytes:
        """The serialised google.rpc.Status that travels in the trailing metadata."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
        status.details.add().Pack(info)
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.message)
            status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_after is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromNanoseconds(int(self.retry_after * 1e9))
            status.details.add().Pack(retry)
        serialised: bytes = status.SerializeToString()
        return serialised


def invalid_field(field: str, message: str) -> RequestError:
    """INVALID_ARGUMENT that names the field."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message, "INVALID_FIELD", field=field)


def overloaded(message: str, retry_after: float) -> RequestError:
    """RESOURCE_EXHAUSTED of a server that has enough to do.

    Args:
        message: what is full.
        retry_after: seconds.
    """
    return RequestError(grpc.StatusCode.RESOURCE_EXHAUSTED, message, "OVERLOADED", retry_after=retry_after)


def deadline_exceeded(message: str = "the deadline passed before the request was served") -> RequestError:
    """DEADLINE_EXCEEDED noticed by the server."""
    return RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, message, "DEADLINE_EXCEEDED")


def internal_error(request_id: str) -> RequestError:
    """INTERNAL for what should not have happened; the server's log says what, under the request's id."""
    return RequestError(
        grpc.StatusCode.INTERNAL, f"internal error; the server's log has it under request {request_id}", "INTERNAL"
    )


def parse(message_class: type[MessageType], raw: bytes) -> MessageType:
    """Parse a request.

    gRPC's own parsing would answer INTERNAL or UNKNOWN with an exception's text; so the methods take bytes and parse here.

    Raises:
        RequestError: INVALID_ARGUMENT, the bytes are no such message (or hold text that is not UTF-8).
    """
    try:
        return message_class.FromString(raw)
    except DecodeError:
        _refuse(message_class.DESCRIPTOR.full_name)


def _refuse(name: str) -> NoReturn:
    raise RequestError(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"the request is not a valid {name} message (every string must be UTF-8)",
        "MALFORMED_MESSAGE",
    ) from None
