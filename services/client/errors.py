"""What a client raises when a service says no."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from llmgr_core.errors import LlmgrError

HINTS = {
    grpc.StatusCode.UNAVAILABLE: "check the address, that the server runs (`llmgr serve`), and whether it wants TLS (--tls-ca)",
    grpc.StatusCode.UNAUTHENTICATED: "give a token: --token-file or LLMGR_TOKEN_FILE, in Python ClientSecurity(token_file=...)",
    grpc.StatusCode.PERMISSION_DENIED: "ask the server's operator for a token of a larger scope",
    grpc.StatusCode.DEADLINE_EXCEEDED: "give the call a longer timeout, or look at the server's load",
    grpc.StatusCode.CANCELLED: "the server has too much to do, or is stopping: try again later",
    grpc.StatusCode.UNIMPLEMENTED: "the address belongs to another service; embedding and ranking have one each",
}

# What gRPC says of a call under way whose channel was closed by its own client; of a stream in further words.
CLOSED_HERE = "Channel closed!"

# Exit code of a command that may succeed later, as it stands.
WORTH_ANOTHER_TRY = 3


@dataclass(frozen=True)
class FieldViolation:
    """A field of the request that the server refused, and why."""

    field: str
    description: str


class ServiceError(LlmgrError):
    """A call that failed, retries included.

    Attributes:
        code: gRPC status code.
        details: the server's own words.
        violations: fields that were refused (google.rpc.BadRequest).
        reason: machine-readable reason (google.rpc.ErrorInfo), "" where none was sent.
        metadata: the ErrorInfo's key-value pairs, for example the sequence a ranking server has reached.
        retry_after: seconds the server asks to wait (google.rpc.RetryInfo); None where it did not ask.
        attempts: calls that were made; all failed.
        request_id: under which the server's log has them; "" for a stream.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        details: str,
        *,
        violations: tuple[FieldViolation, ...] = (),
        reason: str = "",
        metadata: dict[str, str] | None = None,
        retry_after: float | None = None,
        attempts: int = 1,
        request_id: str = "",
    ) -> None:
        tried = "" if attempts == 1 else f" ({attempts} attempts failed)"
        named = f" ({violations[0].field})" if violations else ""
        self.code = code
        self.details = details
        hint = None if code is grpc.StatusCode.CANCELLED and not self.refused_unread else HINTS.get(code)
        super().__init__(f"{code.name}: {details}{named}{tried}", hint)
        self.exit_code = WORTH_ANOTHER_TRY if self._may_pass(code, retry_after) or self.refused_unread else 2
        self.violations = violations
        self.reason = reason
        self.metadata = metadata or {}
        self.retry_after = retry_after
        self.attempts = attempts
        self.request_id = request_id

    @property
    def refused_unread(self) -> bool:
        """Whether the server's end reset the call: under overload its gRPC does so before the server sees it.

        A server that stops resets what outlasts its drain, which looks the same from here.
        """
        return self.code is grpc.StatusCode.CANCELLED and CLOSED_HERE not in self.details

    @staticmethod
    def _may_pass(code: grpc.StatusCode, retry_after: float | None) -> bool:
        return code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED) or retry_after is not None

    @classmethod
    def from_call(cls, error: grpc.RpcError, *, attempts: int = 1, request_id: str = "") -> ServiceError:
        """Read status, details and google.rpc messages out of what grpc or grpc.aio raised."""
        if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
            return cls(grpc.StatusCode.UNKNOWN, str(error), attempts=attempts, request_id=request_id)
        violations: tuple[FieldViolation, ...] = ()
        reason, metadata, retry_after = "", {}, None
        for detail in _rich_details(error):
            if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad = error_details_pb2.BadRequest()
                detail.Unpack(bad)
                violations = tuple(FieldViolation(one.field, one.description) for one in bad.field_violations)
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry = error_details_pb2.RetryInfo()
                detail.Unpack(retry)
                retry_after = retry.retry_delay.ToTimedelta().total_seconds()
            elif detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo()
                detail.Unpack(info)
                reason, metadata = info.reason, dict(info.metadata)
        return cls(
            error.code() or grpc.StatusCode.UNKNOWN,
            error.details() or "",
            violations=violations,
            reason=reason,
            metadata=metadata,
            retry_after=retry_after,
            attempts=attempts,
            request_id=request_id,
        )


def _rich_details(error: grpc.Call | grpc.aio.AioRpcError) -> list[error_details_pb2.Any]:
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # a status whose message and code contradict the plain ones: some proxy rewrote it
        return []
    return list(status.details) if status is not None else []
