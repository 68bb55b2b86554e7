"""Settings of section [serve]."""

from __future__ import annotations

from llmgr_core.settings.section import Section


class ServeSettings(Section):
    """Section [serve]."""
