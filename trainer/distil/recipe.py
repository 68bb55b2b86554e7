"""The distillation run, top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from llmgr_core.encoders import Backbone
from llmgr_core.errors import InputError
from llmgr_core.evaluation import evaluate, summarise
from llmgr_core.graphs import ExampleLoader, SessionBatch
from llmgr_core.progress import Reporter
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings.distil import DistilSettings
from llmgr_core.settings.encoder import EncoderSettings
from trainer.distil.imitation import Imitation
from trainer.distil.student import Student, TextVectors
from trainer.distil.teacher_rankings import TeacherRankings
from trainer.distil.transition_weight import SCORES_AT_ONCE
from trainer.pretrain.checkpoint import Checkpoint, optimizer_tensors, random_tensors, restore_optimizer, restore_random
from trainer.pretrain.log import TrainingLog

STOPPING_METRIC = "NDCG@20"
FINAL_RATE_SHARE = 0.1


@dataclass(frozen=True)
class Tutoring:
    """What the student takes from the tuned LLMGR.

    Attributes:
        rankings: the teacher's rankings of some training prefixes.
        item_part: W_p^T e_v of every item, float32 [V, d]; None unless ``row_pull`` is set.
    """

    rankings: TeacherRankings
    item_part: Tensor | None = None


@dataclass
class DistillationOutcome:
    """What a finished run found.

    Attributes:
        student: with the weights of the best epoch, in evaluation mode, on the CPU.
        validation: its validation metrics, seen items masked, without the transition term.
        best_epoch: counted from 1.
        epochs: epochs trained.
        epoch_seconds: training time of each epoch of this process, without validation.
        examples_per_second: over those epochs.
    """

    student: Student
    validation: dict[str, float]
    best_epoch: int
    epochs: int
    epoch_seconds: list[float] = field(default_factory=list)
    examples_per_second: float = 0.0


class StudentScorer:
    """A student in training as evaluation sees it: logits without the transition term."""

    name = "student"

    def __init__(self, student: Student) -> None:
        self._student = student.eval()
        with torch.inference_mode():
            self._rows = student.rows()

    @torch.inference_mode()
    def scores(self, examples: Examples) -> Tensor:
        prefixes = examples.prefixes(self._student.online.settings.max_clicks)
        batch = SessionBatch.from_sessions(prefixes, device=self._rows.device)
        return self._student.scores(self._rows, batch).float().cpu()


class Distillation:
    """Cross-entropy over the catalogue on every training prefix, plus what the teacher says about some of them.

    loss = CE + lambda tau^2 KL(teacher || student) (see Imitation) + mu mean(1 - cos(c_v, W_p^T e_v))

    - ID vectors are dropped at random, so that text alone learns to rank an item
    - stops when validation NDCG@20 (seen items masked) has not risen for ``patience`` epochs, and keeps the best weights
    - a checkpoint at the end of each epoch and every few minutes; a resumed run follows the same loss curve, bit for bit on
      the same machine and thread count

    Args:
        train: training sessions; every prefix of each is an example.
        validation: examples for early stopping; with none, the last epoch's weights are kept.
        num_items: V.
        encoder: encoder of the ranker.
        settings: of the training.
        text: text vectors of the catalogue, or None for the ID-only variant.
        tutoring: what the teacher says, or None.
        backbone: start from its ID vectors and encoder; None starts fresh.
        seed: of the weights, the order of the examples and dropout.
        directory: where the log goes.
        checkpoints: where checkpoints go, and where one is looked for.

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
        examples = Examples.every_prefix(train)
        if not len(examples):
            raise InputError("no training session has two clicks, so there is nothing to predict", "bring longer sessions")
        self.settings, self.reporter, self.checkpoints = settings, reporter, checkpoints
        self.device = torch.device(settings.device if settings.device != "auto" else _best_device())
        self.validation = validation
        torch.manual_seed(seed)
        student = Student(train.click_counts(num_items) > 0, encoder, settings, text)
        if backbone is not None:
            student.online.start_from(backbone)
        self.student = student.to(self.device)
        self.imitation: Imitation | None = None
        self.item_part: Tensor | None = None
        if tutoring is not None:
            self.imitation = Imitation(
                tutoring.rankings, len(examples), settings.teacher_weight, settings.teacher_temperature, self.device
            )
            self.item_part = None if tutoring.item_part is None else tutoring.item_part.to(self.device)
        self.parameters = list(self.student.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.loader = ExampleLoader(examples, settings.batch_size, encoder.max_clicks, seed=seed, device=self.device)
        self.steps = 0
        self.epoch_loss = 0.0
        self.best: dict[str, Tensor] = {}
        self.best_metrics: dict[str, float] = {}
        self.best_epoch = 0
        self.finished = False
        self.epoch_seconds: list[float] = []
        self.trained = 0
        self.log = TrainingLog(directory, self._restore())

    def run(self, on_epoch: Callable[[int], None] | None = None) -> DistillationOutcome:
        """Train to the end (or from the checkpoint to the end).

        Args:
            on_epoch: called with the number of each finished epoch, after its checkpoint.
        """
        while not self.finished:
            self._train_epoch()
            self._end_epoch()
            if on_epoch is not None:
                on_epoch(self.loader.epoch)
        self.log.close()
        self.student.load_state_dict(self.best)
        seconds = sum(self.epoch_seconds)
        return DistillationOutcome(
            student=self.student.eval().cpu(),
            validation=self.best_metrics,
            best_epoch=self.best_epoch,
            epochs=self.loader.epoch,
            epoch_seconds=self.epoch_seconds,
            examples_per_second=self.trained / seconds if seconds else 0.0,
        )

    def _train_epoch(self) -> None:
        self.student.train()
        started = checkpointed = time.monotonic()
        before = self.trained
        epoch = self.loader.epoch
        with self.reporter.bar(f"epoch {epoch + 1}", len(self.loader)) as advance:
            advance(self.loader.batch)
            for batch, targets, examples in self.loader:
                figures = self._step(batch, targets, examples)
                self.epoch_loss += figures["loss"]
                self.trained += len(targets)
                self.log.write(epoch=epoch + 1, step=self.steps, **figures)
                rate = (self.trained - before) / (time.monotonic() - started)
                advance(1, loss=round(figures["loss"], 4), items_per_second=round(rate))
                if time.monotonic() - checkpointed > 60 * self.settings.checkpoint_minutes:
                    self._write_checkpoint()
                    checkpointed = time.monotonic()
        self.epoch_seconds.append(time.monotonic() - started)

    def _step(self, batch: SessionBatch, targets: Tensor, examples: Tensor) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self._rate_share()
        self.optimizer.zero_grad(set_to_none=True)
        rows = self.student.rows()
        session_vectors = self.student.online.encode(rows, batch)
        loss = self.student.loss(rows, session_vectors, targets)
        figures: dict[str, float] = {}
        if self.imitation is not None:
            imitation, count = self.imitation.loss(self.student.online.logits, session_vectors, rows, targets, examples)
            loss = loss + imitation
            figures = {"imitation": float(imitation.detach()), "imitated": count}
        if self.item_part is not None and self.settings.row_pull:
            apart = 1.0 - nn.functional.cosine_similarity(rows, self.item_part, dim=1)[self.student.trained].mean()
            loss = loss + self.settings.row_pull * apart
        torch.autograd.backward(loss)
        if self.settings.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        self.optimizer.step()
        self.steps += 1
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(f"the loss became {value} at step {self.steps}", "lower distil.learning_rate")
        return {"loss": value, **figures}

    def _end_epoch(self) -> None:
        epoch = self.loader.epoch
        loss = self.epoch_loss / len(self.loader)
        metrics: dict[str, float] = {}
        if len(self.validation):
            metrics = summarise(
                evaluate(StudentScorer(self.student), self.validation, batch_size=self._ranked_at_once()).masked
            )
        better = not metrics or not self.best_metrics or metrics[STOPPING_METRIC] > self.best_metrics[STOPPING_METRIC]
        if better:
            self.best = {name: tensor.detach().clone() for name, tensor in self.student.state_dict().items()}
            self.best_metrics, self.best_epoch = metrics, epoch
        self.finished = epoch >= self.settings.epochs or epoch - self.best_epoch >= self.settings.patience
        self.epoch_loss = 0.0
        self.log.write(epoch=epoch, mean_loss=loss, **metrics)
        seconds = self.epoch_seconds[-1]
        self.reporter.event(
            "epoch", number=epoch, loss=round(loss, 5), **metrics, seconds=round(seconds, 2), best=self.best_epoch == epoch
        )
        self._write_checkpoint()

    def _ranked_at_once(self) -> int:
        return max(1, min(512, SCORES_AT_ONCE // self.student.online.num_items))

    def _rate_share(self) -> float:
        """Linear rise over the first steps, then a cosine from 1 to ``FINAL_RATE_SHARE`` over all epochs."""
        rise = min(1.0, (self.steps + 1) / max(self.settings.warmup_steps, 1))
        done = min(1.0, self.steps / (self.settings.epochs * len(self.loader)))
        return rise * (FINAL_RATE_SHARE + (1.0 - FINAL_RATE_SHARE) * 0.5 * (1.0 + math.cos(math.pi * done)))

    def _write_checkpoint(self) -> None:
        Checkpoint(
            model=self.student.state_dict(),
            best=self.best,
            optimizer=optimizer_tensors(self.student, self.optimizer),
            random=random_tensors(self.device),
            progress={
                "loader": self.loader.state(),
                "steps": self.steps,
                "epoch_loss": self.epoch_loss,
                "best_metrics": self.best_metrics,
                "best_epoch": self.best_epoch,
                "finished": self.finished,
                "log_length": self.log.flush(),
            },
        ).write(self.checkpoints)

    def _restore(self) -> int:
        """Take up the checkpoint, if there is one; returns how much of the log to keep."""
        checkpoint = Checkpoint.read(self.checkpoints)
        if checkpoint is None:
            return 0
        progress = checkpoint.progress
        self.student.load_state_dict(dict(checkpoint.model))
        restore_optimizer(self.student, self.optimizer, checkpoint.optimizer)
        restore_random(self.device, checkpoint.random)
        self.loader.load_state(progress["loader"])
        self.best = {name: tensor.to(self.device) for name, tensor in checkpoint.best.items()}
        self.steps, self.epoch_loss = progress["steps"], progress["epoch_loss"]
        self.best_metrics, self.best_epoch = progress["best_metrics"], progress["best_epoch"]
        self.finished = progress["finished"]
        self.reporter.event("resume", epoch=self.loader.epoch + 1, step=self.steps)
        return int(progress["log_length"])


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
