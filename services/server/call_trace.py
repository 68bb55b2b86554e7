"""What a server needs of a tracing library: start a trace with a call, end it with the answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import grpc


class CallTrace:
    """One call that is not recorded.

    Attributes:
        trace_id: 32 hex digits; "" where nothing is recorded.
    """

    trace_id = ""

    def end(self, code: grpc.StatusCode, reason: str, reply: Any = None) -> None:
        """Called once, when the call is over; ``reply`` is the message that was sent, if there was one."""


class CallTracer(ABC):
    """Records calls."""

    @abstractmethod
    def start(self, method: str, metadata: Iterable[tuple[str, str | bytes]] | None, request_id: str) -> CallTrace:
        """Begin a call."""

    @abstractmethod
    def close(self) -> None:
        """Send what was not sent yet."""


NO_TRACE = CallTrace()
