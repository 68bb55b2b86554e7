"""Settings of section [evaluate]."""

from __future__ import annotations

from llmgr_core.settings.section import Section


class EvaluateSettings(Section):
    """Section [evaluate]."""
