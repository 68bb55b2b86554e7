"""From settings to an encoder."""

from __future__ import annotations

from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.encoders.gcsan import GCSAN
from llmgr_core.encoders.srgnn import SRGNN
from llmgr_core.settings.encoder import EncoderSettings

ENCODERS: dict[str, type[SessionEncoder]] = {"gcsan": GCSAN, "srgnn": SRGNN}


def build_encoder(settings: EncoderSettings) -> SessionEncoder:
    """A fresh encoder of the kind that ``settings.name`` names; its weights come from torch's random state."""
    return ENCODERS[settings.name](settings)
