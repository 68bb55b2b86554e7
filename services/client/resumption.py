"""When a stream that broke is taken up again."""

from __future__ import annotations

import time

import grpc

from services.client.calls import RetryPolicy
from services.client.errors import ServiceError


class Resumption:
    """Counts what went wrong since a stream last brought something.

    Args:
        policy: its pauses are taken between streams; a policy of one attempt never resumes.
        patience: seconds without anything new after which a break is final; 0 never resumes.
        timeout: seconds for everything; None sets no limit.
    """

    def __init__(self, policy: RetryPolicy, patience: float, timeout: float | None) -> None:
        self._policy = policy
        self._patience = patience if policy.attempts > 1 else 0.0
        self._end = None if timeout is None else time.monotonic() + timeout
        self._breaks = 0
        self._progressed = time.monotonic()

    def progressed(self) -> None:
        """The stream brought something."""
        self._breaks = 0
        self._progressed = time.monotonic()

    def remaining(self) -> float | None:
        """Seconds the next stream may take."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.001)

    def pause_after(self, raised: grpc.RpcError | ServiceError) -> float:
        """Seconds to wait before the next stream.

        Raises:
            ServiceError: what ended the stream, where there shall be none.
        """
        error = raised if isinstance(raised, ServiceError) else ServiceError.from_call(raised)
        self._breaks += 1
        if self._breaks == 1:
            # Nothing may have been sent for hours; patience begins with the break.
            self._progressed = time.monotonic()
        pause = max(self._policy.grown_pause(self._breaks), error.retry_after or 0.0)
        back_at = time.monotonic() + pause
        # A server that stops resets streams which outlast its drain.
        broken = error.code is grpc.StatusCode.UNAVAILABLE or error.refused_unread
        if not broken or back_at >= self._progressed + self._patience:
            raise error
        if self._end is not None and back_at >= self._end:
            raise error
        return pause
