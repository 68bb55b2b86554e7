"""A sweep from its first trial to its best model, top to bottom."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmgr_core.artefacts import Artefact, draft_artefact
from llmgr_core.artefacts.directory import finished_artefact
from llmgr_core.data import Dataset
from llmgr_core.encoders.backbone import SETTINGS_NAME, WEIGHTS_NAME
from llmgr_core.errors import InputError
from llmgr_core.evaluation.protocol import protocol
from llmgr_core.evaluation.results import write_results
from llmgr_core.progress import Reporter
from llmgr_core.settings import Settings
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.pretrain import PretrainSettings
from trainer.catalogue_training.log import LOG_NAME
from trainer.sweep.best_settings import best_settings, shaping
from trainer.sweep.directory import SweepDirectory
from trainer.sweep.records import TrialRecord, best_trial, budget_of, finished_trials
from trainer.sweep.space import SearchSpace, Value, settings_by_key
from trainer.sweep.study import SweepStudy
from trainer.sweep.trial import SweepTrial, forget_training

SELECTION = "highest validation NDCG@20 of an epoch, items of the prefix left out; test examples are not read"


class Sweep:
    """The search over one encoder's settings.

    Every trial is a pre-training with the same epochs, patience, data and seed; the first has the settings as given. Hold
    ``places.writing()`` while it lives.

    Args:
        model: name of the encoder.
        dataset: what is trained on; its test examples are never touched.
        settings: [encoder] (but for the name), [pretrain] and seed are where the search starts, [sweep] is its budget.
        places: where everything goes.

    Raises:
        InputError: there are no validation examples to choose by.
        ArtefactError: the directory holds a sweep under other settings.
    """

    def __init__(self, model: str, dataset: Dataset, settings: Settings, places: SweepDirectory, reporter: Reporter) -> None:
        if not len(dataset.validation):
            raise InputError("the data set has no validation examples to choose settings by", "prepare it with another split")
        self.model, self.dataset, self.settings, self.places, self.reporter = model, dataset, settings, places, reporter
        self.encoder = _encoder_as_given(settings.encoder, model)
        start = settings_by_key({"encoder": _fields(self.encoder), "pretrain": _fields(settings.pretrain)})
        self.space = SearchSpace.of(model, start, self.encoder.dimension)
        self.study = SweepStudy(places.study, f"backbone-{model}", self._plan(), self.space, settings.sweep, settings.seed)

    def run(self, trials: int) -> bool:
        """Make trials until there are so many; False where nothing was left to do."""
        self._clear()
        idle = self._is_written()
        while self.study.finished < trials:
            idle = False
            self._one_trial(trials)
            self._write()
        if not idle and not self._is_written():
            self._write()
        return not idle

    def best(self) -> TrialRecord:
        """The trial to keep.

        Raises:
            InputError: no trial has come to its end.
        """
        best = best_trial(finished_trials(self.study.study))
        if best is None:
            raise InputError(
                f"no trial of {self.model} has come to its end", f"see why in {self.places.trials}, then ask for more --trials"
            )
        return best

    def _one_trial(self, trials: int) -> None:
        trial, values = self.study.next_trial()
        trial.set_user_attr("settings", values)
        encoder, pretrain = self._with(values)
        self.reporter.event("trial", model=self.model, number=trial.number, of=trials, **values)
        SweepTrial(
            self.study.study,
            trial,
            encoder=encoder,
            pretrain=pretrain,
            seed=self.settings.seed,
            directory=self.places.trial(trial.number),
            reporter=self.reporter,
        ).run(self.dataset)
        record = next(one for one in finished_trials(self.study.study) if one.number == trial.number)
        self.reporter.event(
            "trial ended", model=self.model, number=record.number, state=record.state, value=record.value, epochs=record.epochs
        )

    def _with(self, values: Mapping[str, Value]) -> tuple[EncoderSettings, PretrainSettings]:
        """The settings as given, with a trial's values in their place."""
        sections = {"encoder": _fields(self.encoder), "pretrain": _fields(self.settings.pretrain)}
        for dotted, value in values.items():
            section, _, key = dotted.partition(".")
            sections[section][key] = value
        return EncoderSettings.model_validate(sections["encoder"]), PretrainSettings.model_validate(sections["pretrain"])

    def _plan(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset.digest,
            "seed": self.settings.seed,
            "encoder": self.encoder.model_dump(),
            "pretrain": shaping(self.settings.pretrain),
            "sweep": self.settings.sweep.model_dump(exclude={"trials"}),
            "space": self.space.describe(),
        }

    def _shaping(self, record: TrialRecord) -> dict[str, Any]:
        """Settings of the best artefact: those ``llmgr pretrain`` would write for it."""
        encoder, pretrain = self._with(record.settings)
        return {"seed": self.settings.seed, "encoder": encoder.model_dump(), "pretrain": shaping(pretrain)}

    def _trials(self, records: list[TrialRecord]) -> dict[str, Any]:
        best = best_trial(records)
        return {
            "model": self.model,
            "selection": SELECTION,
            "budget": budget_of(records, self.settings.pretrain.epochs, self.settings.pretrain.patience),
            "plan": self._plan(),
            "best": None if best is None else best.number,
            "trials": [record.model_dump() for record in records],
        }

    def _is_written(self) -> bool:
        """Whether trials.json and the best model tell of every trial that has ended."""
        records = finished_trials(self.study.study)
        try:
            written = json.loads(self.places.trials.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        if {key: value for key, value in written.items() if key != "protocol"} != self._trials(records):
            return False
        best = best_trial(records)
        if best is None:
            return True
        return self.places.best_settings.is_file() and self._finished_best(best) is not None

    def _finished_best(self, best: TrialRecord) -> Artefact | None:
        return finished_artefact(self.places.best, "backbone", [self.dataset.artefact], self._shaping(best))

    def _write(self) -> None:
        """trials.json, best.toml and the best model, of all trials so far."""
        records = finished_trials(self.study.study)
        best = best_trial(records)
        if best is not None:
            self._write_best(best, budget_of(records, self.settings.pretrain.epochs, self.settings.pretrain.patience))
        facts = protocol(self.dataset.protocol, seed=self.settings.seed, dataset=self.dataset.digest)
        write_results(self.places.trials, {"protocol": facts, **self._trials(records)})
        self._clear()

    def _write_best(self, best: TrialRecord, budget: dict[str, Any]) -> None:
        encoder, pretrain = self._with(best.settings)
        text = best_settings(self.model, best, budget, self.space.describe(), encoder, pretrain, self.settings.seed)
        self.places.best_settings.write_text(text, encoding="utf-8")
        source = self.places.trial(best.number)
        with draft_artefact(self.places.best, "backbone", [self.dataset.artefact], self._shaping(best)) as draft:
            for name in (WEIGHTS_NAME, SETTINGS_NAME, LOG_NAME):
                shutil.copyfile(source / name, draft.path / name)
            draft.details.update(
                num_items=self.dataset.num_items,
                dimension=encoder.dimension,
                parameters=best.parameters,
                trial=best.number,
                selection=SELECTION,
                budget=budget,
            )
            draft.metrics.update(validation=best.validation, best_epoch=best.best_epoch, epochs=best.epochs)

    def _clear(self) -> None:
        """Drop the directories of ended trials, the best one's model excepted."""
        records = finished_trials(self.study.study)
        best = best_trial(records)
        for record in records:
            directory = self.places.trial(record.number)
            if record is best:
                forget_training(directory)
            elif directory.is_dir():
                shutil.rmtree(directory)


def _encoder_as_given(given: EncoderSettings, model: str) -> EncoderSettings:
    """[encoder] with the model's name; what nobody set keeps the model's own default."""
    values = {key: getattr(given, key) for key in given.model_fields_set}
    if model != given.name and given.logits == "lorentz":
        # HCGR's, and no choice of anybody's for another encoder.
        del values["logits"]
    return EncoderSettings.model_validate({**values, "name": model})


def _fields(section: EncoderSettings | PretrainSettings) -> dict[str, Any]:
    """Every field of a section, those of other encoders included, which its dump leaves out."""
    return {key: getattr(section, key) for key in type(section).model_fields}


def summary(model: str, places: SweepDirectory, best: TrialRecord, trials: int) -> dict[str, Any]:
    """One line for standard output."""
    return {
        "sweep": str(places.root),
        "model": model,
        "trials": trials,
        "best": best.number,
        "settings": best.settings,
        "validation": best.validation,
        "backbone": str(places.best),
        "config": str(Path(places.best_settings)),
    }
