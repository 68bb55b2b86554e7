"""The processes that tune together: one, or several under DeepSpeed."""

from __future__ import annotations

from torch import nn

from llmgr_core.engine.hybrid_model import HybridModel
from llmgr_core.settings.engine import EngineSettings
from llmgr_core.settings.tune import TuneSettings
from trainer.tune.optimization import Optimization, SingleProcess


class Processes:
    """One process on its own; ``trainer.tune.distributed`` has the form for several.

    Attributes:
        first: this process measures, logs and writes.
        alone: there is no other.
    """

    first = True
    alone = True

    def place(self, settings: EngineSettings) -> EngineSettings:
        """The engine settings of this process: each has its own device."""
        return settings

    def optimization(self, model: HybridModel, parameters: dict[str, nn.Parameter], settings: TuneSettings) -> Optimization:
        return SingleProcess(model, parameters, settings)

    def as_first(self, figures: dict[str, float]) -> dict[str, float]:
        """The first process's figures, on all of them; the keys are everywhere the same."""
        return figures

    def barrier(self) -> None:
        """Wait until all processes are here."""
