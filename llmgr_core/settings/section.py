"""Base of a settings section."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the TOML file. Unknown keys are errors; values are checked, never coerced silently."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, frozen=True)
