"""Session encoders: from the node vectors of a session graph to one session vector z_s."""

from llmgr_core.encoders.backbone import Backbone
from llmgr_core.encoders.build import build_encoder
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.encoders.logits import ItemLogits
from llmgr_core.settings.encoder import EncoderSettings

__all__ = ["Backbone", "EncoderSettings", "ItemLogits", "SessionEncoder", "build_encoder"]
