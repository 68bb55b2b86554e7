"""Calls with a deadline and retries that stay inside it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc

from services.client.errors import ServiceError

Request = TypeVar("Request")
Reply = TypeVar("Reply")


@dataclass(frozen=True)
class RetryPolicy:
    """When a failed call is made again.

    UNAVAILABLE is retried after a growing, jittered pause. RESOURCE_EXHAUSTED is retried only where the server says when to
    come back: without RetryInfo it means a message that is too large, and will stay so.

    Attributes:
        attempts: calls in total; 1 never retries.
        first_pause: seconds before the second attempt; doubles with each further one.
        longest_pause: seconds a pause may grow to.
    """

    attempts: int = 4
    first_pause: float = 0.05
    longest_pause: float = 2.0

    def pause(self, error: ServiceError, attempt: int) -> float | None:
        """Seconds to wait after failed attempt number ``attempt`` (from 1); None where there shall be no other."""
        if attempt >= self.attempts:
            return None
        grown = min(self.first_pause * 2.0 ** (attempt - 1), self.longest_pause)
        jittered = grown * random.uniform(0.5, 1.0)
        if error.code is grpc.StatusCode.UNAVAILABLE:
            return max(jittered, error.retry_after or 0.0)
        if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_after is not None:
            # Jitter on top, so that the refused do not all come back in the same millisecond.
            return error.retry_after + jittered
        return None


def call_with_retries(
    method: Callable[..., Reply],
    request: Request,
    timeout: float,
    policy: RetryPolicy,
    metadata: tuple[tuple[str, str], ...] = (),
) -> Reply:
    """Call ``method(request)``; ``timeout`` seconds bound all attempts and pauses together.

    Every method of both services may be repeated: inserting the same text or deleting the same item twice changes nothing.

    Raises:
        ServiceError: the last attempt's failure.
    """
    end = time.monotonic() + timeout
    attempt = 0
    while True:
        attempt += 1
        try:
            return method(request, timeout=max(end - time.monotonic(), 0.001), metadata=metadata or None)
        except grpc.RpcError as raised:
            error = ServiceError.from_call(raised)
        pause = policy.pause(error, attempt)
        if pause is None or time.monotonic() + pause >= end:
            raise error
        time.sleep(pause)
