"""Settings of section [evaluate]."""

from __future__ import annotations

from pydantic import Field

from llmgr_core.settings.section import Section


class EvaluateSettings(Section):
    """Section [evaluate]: how scorers are compared. Ranking is always over the whole catalogue.

    Attributes:
        batch_size: examples scored at once; the score matrix is batch_size x V floats.
        reference: scorer that the others are compared with; "auto" takes the ID-only ranker, else the backbone, else the floor.
        resamples: bootstrap resamples behind each interval.
        confidence: share of the bootstrap distribution inside an interval.
        teacher_examples: test examples the language model itself is evaluated on (it runs once a session); 0 leaves it out.
    """

    batch_size: int = Field(default=512, ge=1, le=65536)
    reference: str = "auto"
    resamples: int = Field(default=2000, ge=100, le=1_000_000)
    confidence: float = Field(default=0.95, gt=0.0, lt=1.0)
    teacher_examples: int = Field(default=500, ge=0)
