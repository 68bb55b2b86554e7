"""Settings of section [distil]."""

from __future__ import annotations

from llmgr_core.settings.section import Section


class DistilSettings(Section):
    """Section [distil]."""
