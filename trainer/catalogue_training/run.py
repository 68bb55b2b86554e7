"""A training run over all prefixes of the training sessions, top to bottom; what is learned, a subclass says."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from llmgr_core.device import choose_device
from llmgr_core.errors import InputError
from llmgr_core.graphs import ExampleLoader, SessionBatch
from llmgr_core.progress import Reporter
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings.training import TrainingSettings
from trainer.catalogue_training.checkpoint import (
    Checkpoint,
    optimizer_tensors,
    random_tensors,
    restore_optimizer,
    restore_random,
)
from trainer.catalogue_training.log import TrainingLog

STOPPING_METRIC = "NDCG@20"
FINAL_RATE_SHARE = 0.1
Model = TypeVar("Model", bound=nn.Module)


@dataclass
class TrainingOutcome(Generic[Model]):
    """What a finished run found.

    Attributes:
        model: with the weights of the best epoch, in evaluation mode, on the CPU.
        validation: its validation metrics, seen items masked; empty where there are no validation examples.
        best_epoch: counted from 1.
        epochs: epochs trained.
        epoch_seconds: training time of each epoch of this process, without validation.
        examples_per_second: over those epochs.
    """

    model: Model
    validation: dict[str, float]
    best_epoch: int
    epochs: int
    epoch_seconds: list[float] = field(default_factory=list)
    examples_per_second: float = 0.0

    def metrics(self) -> dict[str, Any]:
        """What a manifest tells of it."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "model"}


class CatalogueTraining(ABC, Generic[Model]):
    """AdamW on every training prefix, a warm-up and a cosine, early stopping, resume.

    - loss and validation metrics to the log and the reporter, examples/s to the reporter
    - stops when validation NDCG@20 (seen items masked) has not risen for ``patience`` epochs, and keeps the best weights
    - a checkpoint at the end of each epoch and every few minutes; a resumed run follows the same loss curve, bit for bit on
      the same machine and thread count

    A subclass makes the model (``make_model``), says what a step's loss is (``loss``) and what validation finds
    (``validate``).

    Args:
        train: training sessions; every prefix of each is an example.
        validation: examples for early stopping; with none, the last epoch's weights are kept.
        max_clicks: last clicks of a prefix that a session graph is built from.
        settings: of the training.
        section: name of their section, for messages.
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
        *,
        max_clicks: int,
        settings: TrainingSettings,
        section: str,
        seed: int,
        directory: Path,
        checkpoints: Path,
        reporter: Reporter,
    ) -> None:
        examples = self.training_examples(train)
        if not len(examples):
            raise InputError("no training session has two clicks, so there is nothing to predict", "bring longer sessions")
        self.options, self.section, self.reporter, self.checkpoints = settings, section, reporter, checkpoints
        self.device = choose_device(settings.device, f"{section}.device")
        self.validation = validation
        torch.manual_seed(seed)
        self.model = self.make_model(len(examples)).to(self.device)
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.loader = ExampleLoader(examples, settings.batch_size, max_clicks, seed=seed, device=self.device)
        self.steps = 0
        self.epoch_loss = 0.0
        self.best: dict[str, Tensor] = {}
        self.best_metrics: dict[str, float] = {}
        self.best_epoch = 0
        self.finished = False
        self.epoch_seconds: list[float] = []
        self.trained = 0
        self.log = TrainingLog(directory, self._restore())

    def training_examples(self, train: Sessions) -> Examples:
        """The examples of an epoch; called once, before there is a model."""
        return Examples.every_prefix(train)

    @abstractmethod
    def make_model(self, num_examples: int) -> Model:
        """A fresh model on the CPU; torch's generator has been seeded."""

    @abstractmethod
    def loss(self, batch: SessionBatch, targets: Tensor, examples: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch, and figures for the log: 0-d, on the device, where they stay until the step is over.

        Args:
            batch: graphs of B prefixes.
            targets: int64 [B], the items that followed.
            examples: int64 [B] on the CPU, places of the examples among all training prefixes.
        """

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Metrics of the model as it is on ``self.validation`` (not empty), seen items masked."""

    def run(self, on_epoch: Callable[[int], None] | None = None) -> TrainingOutcome[Model]:
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
        self.model.load_state_dict(self.best)
        seconds = sum(self.epoch_seconds)
        return TrainingOutcome(
            model=self.model.eval().cpu(),
            validation=self.best_metrics,
            best_epoch=self.best_epoch,
            epochs=self.loader.epoch,
            epoch_seconds=self.epoch_seconds,
            examples_per_second=self.trained / seconds if seconds else 0.0,
        )

    def _train_epoch(self) -> None:
        self.model.train()
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
                if time.monotonic() - checkpointed > 60 * self.options.checkpoint_minutes:
                    self._write_checkpoint()
                    checkpointed = time.monotonic()
        self.epoch_seconds.append(time.monotonic() - started)

    def _step(self, batch: SessionBatch, targets: Tensor, examples: Tensor) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * self._rate_share()
        self.optimizer.zero_grad(set_to_none=True)
        loss, figures = self.loss(batch, targets, examples)
        torch.autograd.backward(loss)
        if self.options.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.options.clip_norm)
        self.optimizer.step()
        self.steps += 1
        read = {"loss": loss.detach(), **figures}
        # The one wait of a step.
        values = torch.stack([one.double() for one in read.values()]).tolist()
        if not math.isfinite(values[0]):
            raise InputError(f"the loss became {values[0]} at step {self.steps}", f"lower {self.section}.learning_rate")
        return {
            name: value if one.is_floating_point() else int(value)
            for (name, one), value in zip(read.items(), values, strict=True)
        }

    def _end_epoch(self) -> None:
        epoch = self.loader.epoch
        loss = self.epoch_loss / len(self.loader)
        metrics = self.validate() if len(self.validation) else {}
        if not metrics or not self.best_metrics or metrics[STOPPING_METRIC] > self.best_metrics[STOPPING_METRIC]:
            self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
            self.best_metrics, self.best_epoch = metrics, epoch
        self.finished = epoch >= self.options.epochs or epoch - self.best_epoch >= self.options.patience
        self.epoch_loss = 0.0
        self.log.write(epoch=epoch, mean_loss=loss, **metrics)
        seconds = self.epoch_seconds[-1]
        self.reporter.event(
            "epoch", number=epoch, loss=round(loss, 5), **metrics, seconds=round(seconds, 2), best=self.best_epoch == epoch
        )
        self._write_checkpoint()

    def _rate_share(self) -> float:
        """Linear rise over the first steps, then a cosine from 1 to ``FINAL_RATE_SHARE`` over all epochs."""
        rise = min(1.0, (self.steps + 1) / max(self.options.warmup_steps, 1))
        done = min(1.0, self.steps / (self.options.epochs * len(self.loader)))
        return rise * (FINAL_RATE_SHARE + (1.0 - FINAL_RATE_SHARE) * 0.5 * (1.0 + math.cos(math.pi * done)))

    def _write_checkpoint(self) -> None:
        Checkpoint(
            model=self.model.state_dict(),
            best=self.best,
            optimizer=optimizer_tensors(self.model, self.optimizer),
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
        self.model.load_state_dict(dict(checkpoint.model))
        restore_optimizer(self.model, self.optimizer, checkpoint.optimizer)
        restore_random(self.device, checkpoint.random)
        self.loader.load_state(progress["loader"])
        self.best = {name: tensor.to(self.device) for name, tensor in checkpoint.best.items()}
        self.steps, self.epoch_loss = progress["steps"], progress["epoch_loss"]
        self.best_metrics, self.best_epoch = progress["best_metrics"], progress["best_epoch"]
        self.finished = progress["finished"]
        self.reporter.event("resume", epoch=self.loader.epoch + 1, step=self.steps)
        return int(progress["log_length"])
