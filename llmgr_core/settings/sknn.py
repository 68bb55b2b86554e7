"""Settings of section [sknn]."""

from __future__ import annotations

from pydantic import Field

from llmgr_core.settings.section import Section


class SessionNeighbourSettings(Section):
    """Section [sknn]: the baseline that ranks by the sessions most like the prefix (V-SKNN); nothing is trained.

    Attributes:
        neighbours: k, most similar sessions that speak; 0 chooses among 50, 100, 200, 500 and 1,000 on validation examples.
        recent: n, the k are looked for among the so many latest sessions that share an item with the prefix.
    """

    neighbours: int = Field(default=500, ge=0, le=1_000_000)
    recent: int = Field(default=1000, ge=1, le=1_000_000_000)
