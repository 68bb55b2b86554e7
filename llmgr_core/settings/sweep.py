"""Settings of section [sweep]."""

from __future__ import annotations

from pydantic import Field

from llmgr_core.settings.section import Section


class SweepSettings(Section):
    """Section [sweep]: how ``llmgr tune-backbone`` searches; a trial trains as [pretrain] says.

    Attributes:
        trials: trainings of each model, all with the same epochs and patience; the first has the settings as given.
        startup_trials: finished trials before TPE leaves random search.
        pruning: give up a trial whose best validation NDCG@20 so far lies under the median of the complete ones at that epoch.
        pruning_trials: complete trials before any is given up.
        pruning_after: epochs a trial gets in any case.
    """

    trials: int = Field(default=20, ge=1, le=10_000)
    startup_trials: int = Field(default=8, ge=1, le=10_000)
    pruning: bool = True
    pruning_trials: int = Field(default=4, ge=1, le=10_000)
    pruning_after: int = Field(default=5, ge=1, le=10_000)
