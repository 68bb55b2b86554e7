"""Every knob of every step: one model a section, one TOML file a use, every key open to ``--set``."""

from llmgr_core.settings.loading import load_settings
from llmgr_core.settings.root import Settings

__all__ = ["Settings", "load_settings"]
