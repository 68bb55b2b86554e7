"""What turns model logits into the scores of an answer."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ScoringSettings(BaseModel):
    """score = (logit + w * log(1 + c * t(s, v))) / temperature; fitted on validation, stored with the ranker.

    Attributes:
        transition_weight: w.
        transition_slope: c.
        temperature: divides the sum; fitted under the same masking that serving uses.
        include_seen: whether items of the session may be ranked when a request does not say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    transition_weight: float = Field(default=0.0, ge=0.0)
    transition_slope: float = Field(default=20.0, gt=0.0)
    temperature: float = Field(default=1.0, gt=0.0)
    include_seen: bool = False
