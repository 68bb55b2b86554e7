"""Settings of section [pretrain]."""

from __future__ import annotations

from llmgr_core.settings.training import TrainingSettings


class PretrainSettings(TrainingSettings):
    """Section [pretrain]: training of the ID-only backbone; TrainingSettings has the keys."""
