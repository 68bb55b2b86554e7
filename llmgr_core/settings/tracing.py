"""Settings of section [serve.tracing]."""

from __future__ import annotations

from pydantic import Field

from llmgr_core.settings.section import Section


class TracingSettings(Section):
    """Section [serve.tracing]: OpenTelemetry traces of calls; needs the extra ``otel``.

    Attributes:
        endpoint: OTLP collector over gRPC, for example "http://127.0.0.1:4317" (https for TLS); "" records no traces.
        sample_ratio: share of calls that are recorded where the caller has not decided; a caller's own decision holds.
    """

    endpoint: str = ""
    sample_ratio: float = Field(default=0.01, ge=0.0, le=1.0)
