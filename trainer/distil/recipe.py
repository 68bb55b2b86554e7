"""Distillation of the online ranker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from llmgr_core.encoders import Backbone
from llmgr_core.evaluation import evaluate, summarise
from llmgr_core.graphs import SessionBatch
from llmgr_core.progress import Reporter
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings.distil import DistilSettings
from llmgr_core.settings.encoder import EncoderSettings
from trainer.catalogue_training import CatalogueTraining
from trainer.distil.controls import shuffled_clicks
from trainer.distil.imitation import Imitation
from trainer.distil.student import Student, TextVectors
from trainer.distil.teacher_rankings import TeacherRankings
from trainer.distil.transition_weight import SCORES_AT_ONCE


@dataclass(frozen=True)
class Tutoring:
    """What the student takes from the tuned LLMGR.

    Attributes:
        rankings: the teacher's rankings of some training prefixes.
        item_part: W_p^T e_v of every item, float32 [V, d]; None unless ``row_pull`` is set.
    """

    rankings: TeacherRankings
    item_part: Tensor | None = None


class StudentScorer:
    """A student in training as evaluation sees it: logits without the transition term."""

    name = "student"

    def __init__(self, student: Student) -> None:
        self._student = student.eval()
        student.online.encoder.freeze()
        with torch.inference_mode():
            self._rows = student.rows()

    @torch.inference_mode()
    def scores(self, examples: Examples) -> Tensor:
        prefixes = examples.prefixes(self._student.online.settings.max_clicks)
        batch = SessionBatch.from_sessions(prefixes, device=self._rows.device)
        return self._student.scores(self._rows, batch).float().cpu()


class Distillation(CatalogueTraining[Student]):
    """Cross-entropy over the catalogue on every training prefix, plus what the teacher says about some of them.

    loss = CE + lambda tau^2 KL(teacher || student) (see Imitation) + mu mean(1 - cos(c_v, W_p^T e_v))

    ID vectors are dropped at random, so that text alone learns to rank an item. How a run goes on, CatalogueTraining says;
    its validation metrics are without the transition term.

    Args:
        train: training sessions.
        validation: examples for early stopping, all of them used.
        num_items: V.
        encoder: encoder of the ranker.
        text: text vectors of the catalogue, or None for the ID-only variant.
        tutoring: what the teacher says, or None.
        backbone: start from its ID vectors and encoder; None starts fresh.
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
        settings: DistilSettings,
        text: TextVectors | None,
        tutoring: Tutoring | None = None,
        backbone: Backbone | None = None,
        seed: int,
        directory: Path,
        checkpoints: Path,
        reporter: Reporter,
    ) -> None:
        self.settings = settings
        self._trained_items = train.click_counts(num_items) > 0
        self._encoder, self._text, self._tutoring, self._backbone = encoder, text, tutoring, backbone
        self.imitation: Imitation | None = None
        self.item_part: Tensor | None = None
        super().__init__(
            train,
            validation,
            max_clicks=encoder.max_clicks,
            settings=settings,
            section="distil",
            seed=seed,
            directory=directory,
            checkpoints=checkpoints,
            reporter=reporter,
        )

    def training_examples(self, train: Sessions) -> Examples:
        examples = super().training_examples(train)
        return shuffled_clicks(examples) if self.settings.controls.history == "shuffled" else examples

    def make_model(self, num_examples: int) -> Student:
        student = Student(self._trained_items, self._encoder, self.settings, self._text)
        if self._backbone is not None:
            student.online.start_from(self._backbone)
        if self._tutoring is not None:
            settings = self.settings
            self.imitation = Imitation(
                self._tutoring.rankings, num_examples, settings.teacher_weight, settings.teacher_temperature, self.device
            )
            item_part = self._tutoring.item_part
            self.item_part = None if item_part is None else item_part.to(self.device)
        return student

    def loss(self, batch: SessionBatch, targets: Tensor, examples: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        student = self.model
        rows = student.rows()
        session_vectors = student.online.encode(rows, batch)
        loss = student.loss(rows, session_vectors, targets)
        figures: dict[str, Tensor] = {}
        if self.imitation is not None:
            imitation, count = self.imitation.loss(student.online.logits, session_vectors, rows, targets, examples)
            loss = loss + imitation
            figures = {"imitation": imitation.detach(), "imitated": count}
        if self.item_part is not None and self.settings.row_pull:
            apart = 1.0 - nn.functional.cosine_similarity(rows, self.item_part, dim=1)[student.trained].mean()
            loss = loss + self.settings.row_pull * apart
        return loss, figures

    def validate(self) -> dict[str, float]:
        at_once = max(1, min(512, SCORES_AT_ONCE // self.model.online.num_items))
        return summarise(evaluate(StudentScorer(self.model), self.validation, batch_size=at_once).masked)
