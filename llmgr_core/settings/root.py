"""All sections together."""

from __future__ import annotations

from pydantic import Field

from llmgr_core.settings.data import DataSettings
from llmgr_core.settings.distil import DistilSettings
from llmgr_core.settings.embed import EmbedSettings
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.engine import EngineSettings
from llmgr_core.settings.evaluate import EvaluateSettings
from llmgr_core.settings.pretrain import PretrainSettings
from llmgr_core.settings.replication import ReplicationSettings
from llmgr_core.settings.section import Section
from llmgr_core.settings.serve import ServeSettings
from llmgr_core.settings.sknn import SessionNeighbourSettings
from llmgr_core.settings.sweep import SweepSettings
from llmgr_core.settings.text import TextSettings
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.settings.tune import TuneSettings


class Settings(Section):
    """The whole configuration file; each attribute is one of its tables.

    Attributes:
        seed: seed of every random choice of every step.
        threads: CPU threads torch may use in training and evaluation; 0 leaves torch's own choice.
    """

    seed: int = Field(default=1, ge=0, le=2**31 - 1)
    threads: int = Field(default=0, ge=0, le=1024)
    data: DataSettings = DataSettings()
    text: TextSettings = TextSettings()
    encoder: EncoderSettings = EncoderSettings()
    pretrain: PretrainSettings = PretrainSettings()
    sweep: SweepSettings = SweepSettings()
    transitions: TransitionSettings = TransitionSettings()
    sknn: SessionNeighbourSettings = SessionNeighbourSettings()
    engine: EngineSettings = EngineSettings()
    tune: TuneSettings = TuneSettings()
    embed: EmbedSettings = EmbedSettings()
    distil: DistilSettings = DistilSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    serve: ServeSettings = ServeSettings()
    replication: ReplicationSettings = ReplicationSettings()
