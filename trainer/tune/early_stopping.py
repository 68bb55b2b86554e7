"""Validation at intervals: the best weights so far, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn

from llmgr_core.settings.tune import TuneSettings
from trainer.tune.processes import Processes

Figures = dict[str, float]
BEST = "best."


class EarlyStopping:
    """Watches one stage.

    The stage is validated before its first step, every ``validation_steps`` and after its last one. It stops after ``patience``
    validations in a row without a better figure, and ends with the weights that had the best one: those it began with, where no
    step made them better.

    Args:
        settings: section [tune].
        parameters: what learns in the stage, by name.
        measure: figures of the model as it stands, the first of them the one to raise; the same on every process.
    """

    def __init__(self, settings: TuneSettings, parameters: Mapping[str, nn.Parameter], measure: Callable[[], Figures]) -> None:
        self._every, self._patience = settings.validation_steps, settings.patience
        self._parameters, self._measure = parameters, measure
        self._best, self._best_step, self._waited = -math.inf, 0, 0
        self._weights: dict[str, torch.Tensor] = {}

    @classmethod
    def of(
        cls,
        settings: TuneSettings,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        measure: Callable[[], Figures],
        processes: Processes,
    ) -> EarlyStopping:
        """For a stage of this model: the first process's figures hold for all, and the model goes on with dropout as it was."""

        def agreed() -> Figures:
            modes = [(module, module.training) for module in model.modules()]
            figures = processes.as_first(measure())
            for module, training in modes:
                module.training = training
            return figures

        return cls(settings, parameters, agreed)

    @property
    def stop(self) -> bool:
        return self._waited >= self._patience

    def due(self, steps_done: int, steps: int) -> bool:
        """Whether to validate after so many of the stage's steps."""
        return steps_done % self._every == 0 or steps_done == steps

    def validate(self, steps_done: int) -> Figures:
        """Measure, and keep the weights where they are the best so far."""
        figures = self._measure()
        figure = next(iter(figures.values()))
        if figure > self._best:
            self._best, self._best_step, self._waited = figure, steps_done, 0
            self._weights = {name: one.detach().cpu().clone() for name, one in self._parameters.items()}
        else:
            self._waited += 1
        return figures

    def position(self) -> Figures:
        """What a checkpoint keeps beside ``tensors``."""
        return {"best": self._best, "best_step": self._best_step, "waited": self._waited}

    def tensors(self) -> dict[str, torch.Tensor]:
        """The best weights by name, for a checkpoint."""
        return {BEST + name: one for name, one in self._weights.items()}

    def load(self, position: Figures, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what ``position`` and ``tensors`` gave; a checkpoint of a run without validation has neither."""
        if not position:
            return
        self._best, self._best_step, self._waited = position["best"], int(position["best_step"]), int(position["waited"])
        self._weights = {name: tensors[BEST + name] for name in self._parameters}

    def restore(self, stage: int) -> Figures:
        """Give the model its best weights; their step and figure, as the manifest names them."""
        for name, one in self._parameters.items():
            one.data.copy_(self._weights[name].reshape(one.shape))
        return {f"stage{stage}_best_step": self._best_step, f"stage{stage}_best_validation": round(self._best, 4)}
