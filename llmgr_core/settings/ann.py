"""Settings of section [serve.ann]."""

from __future__ import annotations

from pydantic import Field

from llmgr_core.settings.section import Section


class AnnSettings(Section):
    """Section [serve.ann]: approximate search of very large tables; needs the extra ``ann``.

    Attributes:
        enabled: off unless set: rankings are exact, with probabilities.
        least_items: a table of fewer items is scanned exactly all the same.
        probes: cells of the index that a request looks into; more find more, and take longer.
        rebuild_share: the index is built anew, beside the requests, when so large a share of the items was inserted or changed
            since; until then these are scored one by one.
        shadow_share: share of the rankings that are repeated exactly, beside the requests, to measure how much is found.
        shadow_per_second: at most so many of them.
    """

    enabled: bool = False
    least_items: int = Field(default=500_000, ge=1)
    probes: int = Field(default=64, ge=1, le=65_536)
    rebuild_share: float = Field(default=0.01, gt=0.0, le=1.0)
    shadow_share: float = Field(default=0.01, ge=0.0, le=1.0)
    shadow_per_second: float = Field(default=2.0, gt=0.0, le=1000.0)
