"""From settings to an encoder."""

from __future__ import annotations

from llmgr_core.encoders.bsarec import BSARec
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.encoders.gcsan import GCSAN
from llmgr_core.encoders.gru4rec import GRU4Rec
from llmgr_core.encoders.narm import NARM
from llmgr_core.encoders.sasrec import SASRec
from llmgr_core.encoders.srgnn import SRGNN
from llmgr_core.encoders.stamp import STAMP
from llmgr_core.settings.encoder import EncoderSettings

ENCODERS: dict[str, type[SessionEncoder]] = {
    "gcsan": GCSAN,
    "srgnn": SRGNN,
    "gru4rec": GRU4Rec,
    "stamp": STAMP,
    "narm": NARM,
    "sasrec": SASRec,
    "bsarec": BSARec,
}


def build_encoder(settings: EncoderSettings) -> SessionEncoder:
    """A fresh encoder of the kind that ``settings.name`` names; its weights come from torch's random state."""
    return ENCODERS[settings.name](settings)
