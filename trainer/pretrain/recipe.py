"""Pre-training of the ID-only backbone."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from llmgr_core.encoders import Backbone
from llmgr_core.evaluation import BackboneScorer, evaluate, summarise
from llmgr_core.graphs import SessionBatch
from llmgr_core.progress import Reporter
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.pretrain import PretrainSettings
from trainer.catalogue_training import CatalogueTraining


class Pretraining(CatalogueTraining[Backbone]):
    """Full-catalogue cross-entropy on every prefix of the training sessions; how a run goes on, CatalogueTraining says.

    Args:
        train: training sessions.
        validation: examples for early stopping; ``settings.validation_examples`` of them are used.
        num_items: V.
        encoder: shape of the model.
        settings, seed, directory, checkpoints, reporter: see CatalogueTraining.

    Raises:
        InputError: no training session has two clicks.
    """

    def __init__(
        self,
        train: Sessions,
        validation: Examples,
        num_items: int,
        *,
        encoder: EncoderSettings,
        settings: PretrainSettings,
        seed: int,
        directory: Path,
        checkpoints: Path,
        reporter: Reporter,
    ) -> None:
        self._num_items, self._encoder = num_items, encoder
        super().__init__(
            train,
            validation.evenly_spread(settings.validation_examples),
            max_clicks=encoder.max_clicks,
            settings=settings,
            section="pretrain",
            seed=seed,
            directory=directory,
            checkpoints=checkpoints,
            reporter=reporter,
        )

    def make_model(self, num_examples: int) -> Backbone:
        return Backbone(self._num_items, self._encoder)

    def loss(self, batch: SessionBatch, targets: Tensor, examples: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.model.loss(batch, targets), {}

    def validate(self) -> dict[str, float]:
        return summarise(evaluate(BackboneScorer(self.model), self.validation).masked)
