"""TPE whose draws depend on the seed, the study so far and the trial's number, on nothing a process remembers."""

from __future__ import annotations

import hashlib
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial


class ResumableTPE(BaseSampler):
    """A tree-structured Parzen estimator (Bergstra et al. 2011) that a new process takes up where the old one was killed.

    Optuna's own sampler draws from one random stream that dies with its process. Here every draw has a generator of its own,
    seeded by the study's seed, the trial's number and the setting's name.

    Args:
        seed: of the study.
        startup_trials: finished trials before random search ends.
    """

    def __init__(self, seed: int, startup_trials: int) -> None:
        self._seed, self._startup_trials = seed, startup_trials

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler(trial.number).infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return self._sampler(trial.number).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler(trial.number, param_name).sample_independent(study, trial, param_name, param_distribution)

    def _sampler(self, number: int, name: str = "") -> TPESampler:
        digest = hashlib.sha256(f"{self._seed}/{number}/{name}".encode()).digest()
        # One process a study: no other trial is running that this one should keep away from.
        return TPESampler(
            seed=int.from_bytes(digest[:4]), n_startup_trials=self._startup_trials, multivariate=True, constant_liar=False
        )
