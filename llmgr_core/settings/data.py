"""Settings of section [data]."""

from __future__ import annotations

from llmgr_core.settings.section import Section


class DataSettings(Section):
    """Section [data]."""
