"""Settings of section [encoder]."""

from __future__ import annotations

from llmgr_core.settings.section import Section


class EncoderSettings(Section):
    """Section [encoder]."""
