"""One trial: a pre-training run that reports every epoch to the study."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from optuna.study import Study
from optuna.trial import Trial, TrialState

from llmgr_core.data import Dataset
from llmgr_core.encoders import Backbone
from llmgr_core.errors import InputError
from llmgr_core.progress import Reporter
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.pretrain import PretrainSettings
from trainer.catalogue_training import TrainingOutcome
from trainer.catalogue_training.log import LOG_NAME
from trainer.catalogue_training.run import STOPPING_METRIC
from trainer.pretrain import Pretraining

CHECKPOINTS = "checkpoints"


class SweepTrial:
    """Trains one backbone, or goes on training it from its last checkpoint, and tells the study how it went.

    - after each epoch the validation metric goes to the study, which may give the trial up
    - a trial whose loss stops being a number has failed; it counts, and the sweep goes on
    - the model stands in the trial's directory before the study hears of its end

    Args:
        study, trial: of Optuna; the trial is running.
        encoder, pretrain: settings of the trial.
        seed: of its weights and data order; the same for every trial.
        directory: of the trial.
    """

    def __init__(
        self,
        study: Study,
        trial: Trial,
        *,
        encoder: EncoderSettings,
        pretrain: PretrainSettings,
        seed: int,
        directory: Path,
        reporter: Reporter,
    ) -> None:
        self.study, self.trial = study, trial
        self.encoder, self.pretrain, self.seed = encoder, pretrain, seed
        self.directory, self.reporter = directory, reporter

    def run(self, dataset: Dataset) -> None:
        """Train to the end, and tell the study.

        Raises:
            InputError: the training sessions cannot be trained on at all.
        """
        (self.directory / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        self.trial.set_user_attr("directory", self.directory.name)
        training = Pretraining(
            dataset.train,
            dataset.validation,
            dataset.num_items,
            encoder=self.encoder,
            settings=self.pretrain,
            seed=self.seed,
            directory=self.directory,
            checkpoints=self.directory / CHECKPOINTS,
            reporter=self.reporter,
        )
        # What an earlier process trained but did not live to report.
        pruned = self._report() and not training.finished
        clock = time.monotonic()

        def after_epoch(_: int) -> None:
            nonlocal pruned, clock
            now = time.monotonic()
            self.trial.set_user_attr("seconds", self.trial.user_attrs.get("seconds", 0.0) + now - clock)
            clock = now
            pruned = self._report() and not training.finished
            training.finished = training.finished or pruned

        training.finished = training.finished or pruned
        try:
            outcome = training.run(after_epoch)
        except InputError as error:
            self.trial.set_user_attr("error", str(error).partition("\n")[0])
            self.study.tell(self.trial, state=TrialState.FAIL)
            return
        self._tell(outcome, pruned)

    def _tell(self, outcome: TrainingOutcome[Backbone], pruned: bool) -> None:
        outcome.model.save(self.directory)
        facts = {
            "best_epoch": outcome.best_epoch,
            "epochs": outcome.epochs,
            "validation": outcome.validation,
            "parameters": sum(parameter.numel() for parameter in outcome.model.parameters()),
        }
        self.trial.set_user_attr("outcome", facts)
        if pruned:
            self.study.tell(self.trial, state=TrialState.PRUNED)
        else:
            self.study.tell(self.trial, outcome.validation[STOPPING_METRIC])

    def _report(self) -> bool:
        """Report the epochs the study has not heard of; True where it would give the trial up now."""
        path = self.directory / LOG_NAME
        epochs = [line for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()) if STOPPING_METRIC in line]
        known = self.study.get_trials(deepcopy=False)[self.trial.number].intermediate_values
        for line in epochs:
            if line["epoch"] not in known:
                self.trial.report(line[STOPPING_METRIC], line["epoch"])
        self.trial.set_user_attr("loss", [line["mean_loss"] for line in epochs])
        # Optuna answers with a boolean of NumPy's, which no checkpoint can hold.
        return bool(epochs) and bool(self.trial.should_prune())


def forget_training(directory: Path) -> None:
    """Drop what only an unfinished trial needs."""
    shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
