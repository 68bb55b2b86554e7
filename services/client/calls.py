"""Calls with a deadline and retries that stay inside it."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc

from llmgr_core.errors import InputError
from services.client.errors import ServiceError
from services.server.request_ids import REQUEST_ID_KEY, request_id

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RetryPolicy:
    """When a failed call is made again.

    UNAVAILABLE is retried after a growing, jittered pause, and so is CANCELLED, which is what clients see of calls that a
    server's gRPC refuses unread; not where the client itself was closed. RESOURCE_EXHAUSTED is retried only where the server
    says when to come back: without RetryInfo it means a message that is too large, and will stay so. DEADLINE_EXCEEDED is
    retried only where it was ``attempt_timeout`` that passed. Nothing else is: the same request would get the same answer.

    Attributes:
        attempts: calls in total; 1 never retries.
        first_pause: seconds before the second attempt; doubles with each further one.
        longest_pause: seconds a pause may grow to.
        attempt_timeout: seconds a single attempt may take, so that a replica that hangs leaves time to ask another; None leaves
            each attempt the whole deadline.
    """

    attempts: int = 4
    first_pause: float = 0.05
    longest_pause: float = 2.0
    attempt_timeout: float | None = None

    def pause(self, error: ServiceError, attempt: int) -> float | None:
        """Seconds to wait after failed attempt number ``attempt`` (from 1); None where there shall be no other."""
        if attempt >= self.attempts:
            return None
        jittered = self.grown_pause(attempt)
        if error.code is grpc.StatusCode.UNAVAILABLE or error.refused_unread:
            return max(jittered, error.retry_after or 0.0)
        if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_after is not None:
            # Jitter on top, so that the refused do not all come back in the same millisecond.
            return error.retry_after + jittered
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED and self.attempt_timeout is not None:
            return jittered
        return None

    def grown_pause(self, attempt: int) -> float:
        """Seconds, between half of and all of ``first_pause`` doubled with each attempt."""
        return min(self.first_pause * 2.0 ** min(attempt - 1, 60), self.longest_pause) * random.uniform(0.5, 1.0)


class RetryBudget:
    """Keeps retries from drowning servers that fail most calls (retry throttling of gRFC A6).

    A retry takes a token and a call that succeeds gives a tenth of one back; with less than half of the tokens left, failures
    are handed to the caller at once. So retries add a tenth to the load for long, and a burst of them is free.
    """

    def __init__(self, tokens: float = 100.0, per_success: float = 0.1) -> None:
        self._most = self._tokens = tokens
        self._per_success = per_success
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether there may be another attempt."""
        with self._lock:
            if self._tokens <= self._most / 2:
                return False
            self._tokens -= 1.0
            return True

    def succeeded(self) -> None:
        with self._lock:
            self._tokens = min(self._tokens + self._per_success, self._most)


class Attempts:
    """The attempts of one call.

    Args:
        timeout: seconds for all of them and the pauses between.
        metadata: as the caller gave it; ``metadata`` then holds a request id too, the same in every attempt.

    Raises:
        InputError: ``timeout`` is no positive number of seconds.
    """

    def __init__(self, timeout: float, policy: RetryPolicy, metadata: Metadata = (), budget: RetryBudget | None = None) -> None:
        if not (timeout > 0 and math.isfinite(timeout)):
            raise InputError(f"a timeout of {timeout} s: a call needs a deadline in the future")
        self._end = time.monotonic() + timeout
        self._policy, self._budget = policy, budget
        self.made = 0
        self.request_id = request_id(metadata)
        self.metadata = (*(one for one in metadata if one[0] != REQUEST_ID_KEY), (REQUEST_ID_KEY, self.request_id))

    def next_timeout(self) -> float:
        """Seconds that the next attempt may take; counts it."""
        self.made += 1
        left = max(self._end - time.monotonic(), 0.001)
        return left if self._policy.attempt_timeout is None else min(left, self._policy.attempt_timeout)

    def succeeded(self) -> None:
        if self._budget is not None:
            self._budget.succeeded()

    def pause_after(self, raised: grpc.RpcError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            ServiceError: there is none; it is the failure of the last one.
        """
        error = ServiceError.from_call(raised, attempts=self.made, request_id=self.request_id)
        pause = self._policy.pause(error, self.made)
        if pause is None or time.monotonic() + pause >= self._end:
            raise error
        if self._budget is not None and not self._budget.take():
            raise error
        return pause


def call_with_retries(
    method: Callable[..., Reply],
    request: Request,
    timeout: float,
    policy: RetryPolicy,
    metadata: Metadata = (),
    budget: RetryBudget | None = None,
) -> Reply:
    """Call ``method(request)``; ``timeout`` seconds bound all attempts and pauses together.

    Every method of both services may be repeated: inserting the same text or deleting the same item twice changes nothing.

    Raises:
        ServiceError: the last attempt's failure.
    """
    attempts = Attempts(timeout, policy, metadata, budget)
    while True:
        try:
            reply = method(request, timeout=attempts.next_timeout(), metadata=attempts.metadata)
        except grpc.RpcError as raised:
            pause = attempts.pause_after(raised)
        else:
            attempts.succeeded()
            return reply
        time.sleep(pause)


async def await_with_retries(
    method: Callable[..., Awaitable[Reply]],
    request: Request,
    timeout: float,
    policy: RetryPolicy,
    metadata: Metadata = (),
    budget: RetryBudget | None = None,
) -> Reply:
    """As call_with_retries, on an event loop."""
    attempts = Attempts(timeout, policy, metadata, budget)
    while True:
        try:
            reply = await method(request, timeout=attempts.next_timeout(), metadata=attempts.metadata)
        except grpc.RpcError as raised:
            pause = attempts.pause_after(raised)
        else:
            attempts.succeeded()
            return reply
        await asyncio.sleep(pause)
