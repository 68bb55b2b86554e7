"""From settings to an encoder."""

from __future__ import annotations

from llmgr_core.encoders.bsarec import BSARec
from llmgr_core.encoders.caser import Caser
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.encoders.fpmc import FPMC
from llmgr_core.encoders.gcsan import GCSAN
from llmgr_core.encoders.gru4rec import GRU4Rec
from llmgr_core.encoders.hcgr import HCGR
from llmgr_core.encoders.narm import NARM
from llmgr_core.encoders.niser import NISER
from llmgr_core.encoders.sasrec import SASRec
from llmgr_core.encoders.srgnn import SRGNN
from llmgr_core.encoders.stamp import STAMP
from llmgr_core.errors import SettingsError
from llmgr_core.settings.encoder import EncoderSettings

ENCODERS: dict[str, type[SessionEncoder]] = {
    "gcsan": GCSAN,
    "srgnn": SRGNN,
    "niser": NISER,
    "gru4rec": GRU4Rec,
    "stamp": STAMP,
    "narm": NARM,
    "sasrec": SASRec,
    "bsarec": BSARec,
    "caser": Caser,
    "hcgr": HCGR,
}


def build_encoder(settings: EncoderSettings, num_items: int | None = None) -> SessionEncoder:
    """A fresh encoder of the kind that ``settings.name`` names; its weights come from torch's random state.

    Args:
        settings: section [encoder].
        num_items: V, for an encoder with a table of its own; None where items may come later.

    Raises:
        SettingsError: FPMC without ``num_items``.
    """
    if settings.name == "fpmc":
        if num_items is None:
            raise SettingsError(
                'encoder.name = "fpmc" has a vector of its own for every item and cannot take other items',
                "use it as a backbone alone, or choose another encoder",
            )
        return FPMC(settings, num_items)
    return ENCODERS[settings.name](settings)
