"""The study behind a sweep: opened, checked against what is asked now, and its unfinished trial found again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import Trial, TrialState

from llmgr_core.errors import ArtefactError
from llmgr_core.settings.sweep import SweepSettings
from trainer.sweep.sampler import ResumableTPE
from trainer.sweep.space import SearchSpace, Value

PLAN = "plan"


class SweepStudy:
    """An Optuna study in a journal file (JSON lines), for one process at a time; SweepDirectory.writing sees to that.

    Args:
        path: the journal; made where it is missing.
        name: of the study.
        plan: JSON-able description of what is searched and how each trial trains; a study goes on only under the same.
        space: what is searched; its starting values are the first trial.
        settings: of the search.
        seed: of the search.

    Raises:
        ArtefactError: the journal is damaged, or belongs to another plan (the message names what differs).
    """

    def __init__(
        self, path: Path, name: str, plan: Mapping[str, Any], space: SearchSpace, settings: SweepSettings, seed: int
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path.parent.mkdir(parents=True, exist_ok=True)
        _repair(path)
        self._name, self._space = name, space
        try:
            self._storage = JournalStorage(JournalFileBackend(str(path)))
            self.study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                direction="maximize",
                sampler=ResumableTPE(seed, settings.startup_trials),
                pruner=_pruner(settings),
                load_if_exists=True,
            )
        except (ValueError, KeyError, AssertionError) as error:
            raise ArtefactError(f"{path} is no usable study: {error}", "delete it, or use --force, to start afresh") from None
        _require_plan(self.study, path, plan)
        if not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial(space.first())

    @property
    def finished(self) -> int:
        """Trials that have ended: complete, pruned or failed."""
        return sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))

    def next_trial(self) -> tuple[Trial, dict[str, Value]]:
        """The trial that an earlier process left unfinished, else a new one; and its settings by key."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if running:
            study_id = self._storage.get_study_id_from_name(self._name)
            trial = Trial(self.study, self._storage.get_trial_id_from_study_id_trial_number(study_id, running[0].number))
        else:
            trial = self.study.ask()
        return trial, self._space.suggest(trial)


def _pruner(settings: SweepSettings) -> BasePruner:
    if not settings.pruning:
        return NopPruner()
    return MedianPruner(n_startup_trials=settings.pruning_trials, n_warmup_steps=settings.pruning_after)


def _repair(path: Path) -> None:
    """Undo what a process killed while it wrote may have left: half a line at the end, and Optuna's lock."""
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    if path.exists():
        with path.open("rb+") as stream:
            stream.truncate(stream.read().rfind(b"\n") + 1)


def _require_plan(study: Study, path: Path, plan: Mapping[str, Any]) -> None:
    wanted: dict[str, Any] = json.loads(json.dumps(plan))
    known = study.user_attrs.get(PLAN)
    if known is None:
        study.set_user_attr(PLAN, wanted)
        return
    before, now = _flat(known), _flat(wanted)
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if changed:
        shown = "; ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed[:5])
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise ArtefactError(
            f"{path.parent} was swept under other settings: {shown}{more}",
            "put them back to go on with that sweep, or use --force to start it afresh",
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
