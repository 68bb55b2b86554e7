"""Settings of section [tune]."""

from __future__ import annotations

from llmgr_core.settings.section import Section


class TuneSettings(Section):
    """Section [tune]."""
