"""Settings of section [text]."""

from __future__ import annotations

from llmgr_core.settings.section import Section


class TextSettings(Section):
    """Section [text]."""
