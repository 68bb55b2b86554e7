"""The pre-training run, top to bottom."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from llmgr_core.encoders import Backbone
from llmgr_core.errors import InputError
from llmgr_core.evaluation import BackboneScorer, evaluate, summarise
from llmgr_core.graphs import ExampleLoader, SessionBatch
from llmgr_core.progress import Advance, Reporter
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.pretrain import PretrainSettings
from trainer.pretrain.checkpoint import Checkpoint, optimizer_tensors, random_tensors, restore_optimizer, restore_random
from trainer.pretrain.log import TrainingLog

STOPPING_METRIC = "NDCG@20"
FINAL_RATE_SHARE = 0.1


@dataclass
class PretrainingOutcome:
    """What a finished run found.

    Attributes:
        backbone: with the weights of the best epoch.
        validation: its validation metrics, seen items masked; empty where there are no validation examples.
        best_epoch: counted from 1.
        epochs: epochs trained.
        epoch_seconds: training time of each epoch of this process, without validation.
        examples_per_second: over those epochs.
    """

    backbone: Backbone
    validation: dict[str, float]
    best_epoch: int
    epochs: int
    epoch_seconds: list[float] = field(default_factory=list)
    examples_per_second: float = 0.0


class Pretraining:
    """Full-catalogue cross-entropy on every prefix of the training sessions, AdamW, early stopping, resume.

    - loss and validation metrics to the log and the reporter, examples/s to the reporter
    - stops when validation NDCG@20 (seen items masked) has not risen for ``patience`` epochs, and keeps the best weights
    - a checkpoint at the end of each epoch and every few minutes; a resumed run follows the same loss curve, bit for bit on
      the same machine and thread count

    Args:
        train: training sessions; every prefix of each is an example.
        validation: examples for early stopping; with none, the last epoch's weights are kept.
        num_items: V.
        encoder: shape of the model.
        settings: of the training.
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
        settings: PretrainSettings,
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
        self.validation = _spread(validation, settings.validation_examples)
        torch.manual_seed(seed)
        self.backbone = Backbone(num_items, encoder).to(self.device)
        self.parameters = list(self.backbone.parameters())
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

    def run(self) -> PretrainingOutcome:
        """Train to the end (or from the checkpoint to the end)."""
        while not self.finished:
            self._train_epoch()
            self._end_epoch()
        self.log.close()
        self.backbone.load_state_dict(self.best)
        seconds = sum(self.epoch_seconds)
        return PretrainingOutcome(
            backbone=self.backbone.eval(),
            validation=self.best_metrics,
            best_epoch=self.best_epoch,
            epochs=self.loader.epoch,
            epoch_seconds=self.epoch_seconds,
            examples_per_second=self.trained / seconds if seconds else 0.0,
        )

    def _train_epoch(self) -> None:
        self.backbone.train()
        started = checkpointed = time.monotonic()
        before = self.trained
        epoch = self.loader.epoch
        with self.reporter.bar(f"epoch {epoch + 1}", len(self.loader)) as advance:
            advance(self.loader.batch)
            for batch, targets, _ in self.loader:
                loss = self._step(batch, targets)
                self.epoch_loss += loss
                self.trained += len(targets)
                self.log.write(epoch=epoch + 1, step=self.steps, loss=loss)
                self._advance(advance, loss, (self.trained - before) / (time.monotonic() - started))
                if time.monotonic() - checkpointed > 60 * self.settings.checkpoint_minutes:
                    self._write_checkpoint()
                    checkpointed = time.monotonic()
        self.epoch_seconds.append(time.monotonic() - started)

    def _step(self, batch: SessionBatch, targets: Tensor) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self._rate_share()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.backbone.loss(batch, targets)
        torch.autograd.backward(loss)
        if self.settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        self.optimizer.step()
        self.steps += 1
        value = loss.item()
        if not math.isfinite(value):
            raise InputError(f"the loss became {value} at step {self.steps}", "lower pretrain.learning_rate")
        return value

    def _end_epoch(self) -> None:
        epoch = self.loader.epoch
        loss = self.epoch_loss / len(self.loader)
        metrics: dict[str, float] = {}
        if len(self.validation):
            metrics = summarise(evaluate(BackboneScorer(self.backbone), self.validation).masked)
        better = not metrics or not self.best_metrics or metrics[STOPPING_METRIC] > self.best_metrics[STOPPING_METRIC]
        if better:
            self.best = {name: tensor.detach().clone() for name, tensor in self.backbone.state_dict().items()}
            self.best_metrics, self.best_epoch = metrics, epoch
        self.finished = epoch >= self.settings.epochs or epoch - self.best_epoch >= self.settings.patience
        self.epoch_loss = 0.0
        self.log.write(epoch=epoch, mean_loss=loss, **metrics)
        seconds = self.epoch_seconds[-1]
        self.reporter.event(
            "epoch", number=epoch, loss=round(loss, 5), **metrics, seconds=round(seconds, 2), best=self.best_epoch == epoch
        )
        self._write_checkpoint()

    def _rate_share(self) -> float:
        """Linear rise over the first steps, then a cosine from 1 to ``FINAL_RATE_SHARE`` over all epochs."""
        rise = min(1.0, (self.steps + 1) / max(self.settings.warmup_steps, 1))
        done = min(1.0, self.steps / (self.settings.epochs * len(self.loader)))
        return rise * (FINAL_RATE_SHARE + (1.0 - FINAL_RATE_SHARE) * 0.5 * (1.0 + math.cos(math.pi * done)))

    def _advance(self, advance: Advance, loss: float, rate: float) -> None:
        advance(1, loss=round(loss, 4), items_per_second=round(rate))

    def _write_checkpoint(self) -> None:
        Checkpoint(
            model=self.backbone.state_dict(),
            best=self.best,
            optimizer=optimizer_tensors(self.backbone, self.optimizer),
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
        self.backbone.load_state_dict(checkpoint.model)
        restore_optimizer(self.backbone, self.optimizer, checkpoint.optimizer)
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


def _spread(examples: Examples, limit: int) -> Examples:
    """At most ``limit`` examples, evenly spread; all for 0."""
    if limit == 0 or len(examples) <= limit:
        return examples
    return examples.select((torch.arange(limit) * len(examples) // limit).numpy())
