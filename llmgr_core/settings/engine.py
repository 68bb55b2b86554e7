"""Settings of section [engine]."""

from __future__ import annotations

from llmgr_core.settings.section import Section


class EngineSettings(Section):
    """Section [engine]."""
