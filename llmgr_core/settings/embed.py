"""Settings of section [embed]."""

from __future__ import annotations

from llmgr_core.settings.section import Section


class EmbedSettings(Section):
    """Section [embed]."""
