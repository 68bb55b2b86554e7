"""Settings of section [pretrain]."""

from __future__ import annotations

from llmgr_core.settings.section import Section


class PretrainSettings(Section):
    """Section [pretrain]."""
