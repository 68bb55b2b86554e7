"""What is known of every finished trial, as it is written down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel

from trainer.catalogue_training.run import STOPPING_METRIC

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class TrialRecord(BaseModel):
    """A finished trial.

    Attributes:
        number: counted from 0; trial 0 has the settings as given.
        state: "complete", "pruned" (given up under the median) or "failed" (its loss stopped being a number).
        settings: value of every searched setting, by dotted key.
        value: best validation NDCG@20, seen items masked; None for a failed trial.
        best_epoch: epoch of ``value``, counted from 1.
        epochs: epochs trained.
        validation: all validation metrics at ``best_epoch``.
        curve: mean loss and validation NDCG@20 of each epoch.
        parameters: of the model.
        seconds: training and validation, on the wall clock.
        error: why it failed.
    """

    number: int
    state: str
    settings: dict[str, Any]
    value: float | None
    best_epoch: int | None
    epochs: int
    validation: dict[str, float]
    curve: dict[str, list[float]]
    parameters: int | None
    seconds: float
    error: str | None

    @classmethod
    def of(cls, trial: FrozenTrial) -> TrialRecord:
        """Read a trial of the study."""
        facts = trial.user_attrs
        outcome = facts.get("outcome", {})
        curve = [trial.intermediate_values[epoch] for epoch in sorted(trial.intermediate_values)]
        return cls(
            number=trial.number,
            state=STATES[trial.state],
            settings=facts["settings"],
            value=outcome.get("validation", {}).get(STOPPING_METRIC),
            best_epoch=outcome.get("best_epoch"),
            epochs=len(curve),
            validation=outcome.get("validation", {}),
            curve={"loss": facts.get("loss", []), STOPPING_METRIC: curve},
            parameters=outcome.get("parameters"),
            seconds=round(facts.get("seconds", 0.0), 2),
            error=facts.get("error"),
        )


def finished_trials(study: Study) -> list[TrialRecord]:
    """Every trial that has ended, in order."""
    return [TrialRecord.of(trial) for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def best_trial(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The complete trial with the highest validation NDCG@20, the earliest of equal ones; None where none is complete."""
    complete = [record for record in records if record.state == "complete" and record.value is not None]
    return max(complete, key=lambda record: (record.value, -record.number), default=None)


def budget_of(records: Sequence[TrialRecord], epochs: int, patience: int) -> dict[str, Any]:
    """What the sweep has cost, and what each trial was allowed."""
    counts = {state: sum(record.state == state for record in records) for state in STATES.values()}
    return {
        "trials": len(records),
        **counts,
        "epochs_each_at_most": epochs,
        "patience": patience,
        "epochs": sum(record.epochs for record in records),
        "seconds": round(sum(record.seconds for record in records), 1),
    }
