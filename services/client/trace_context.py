"""The trace that a caller is in, as headers (W3C Trace Context)."""

from __future__ import annotations

import sys


def trace_headers() -> tuple[tuple[str, str], ...]:
    """traceparent and what belongs to it; empty where the program does not use OpenTelemetry or no span is open.

    OpenTelemetry is imported only where the program has done so: elsewhere no span can be open.
    """
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry import propagate

    headers: dict[str, str] = {}
    propagate.inject(headers)
    return tuple((key.lower(), value) for key, value in headers.items() if value.isascii())
