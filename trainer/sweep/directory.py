"""Where a sweep's files stand, and who may write there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmgr_core.errors import ArtefactError


@dataclass(frozen=True)
class SweepDirectory:
    """``RUN/sweeps/MODEL``."""

    root: Path

    @classmethod
    def of(cls, run: Path, model: str) -> SweepDirectory:
        """The sweep of one model in a run directory."""
        return cls(run / "sweeps" / model)

    @classmethod
    def finished(cls, run: Path) -> dict[str, SweepDirectory]:
        """Sweeps of a run that have trials to show, by model."""
        found = sorted(path.parent for path in (run / "sweeps").glob("*/trials.json"))
        return {path.name: cls(path) for path in found}

    @property
    def study(self) -> Path:
        """Optuna's journal, one JSON object a line."""
        return self.root / "study.jsonl"

    @property
    def trials(self) -> Path:
        """All trials, for people and programs."""
        return self.root / "trials.json"

    @property
    def best_settings(self) -> Path:
        """Settings of the best trial, for ``--config``."""
        return self.root / "best.toml"

    @property
    def best(self) -> Path:
        """The best trial's model, an artefact of kind "backbone"."""
        return self.root / "best"

    def trial(self, number: int) -> Path:
        """Where a trial trains."""
        return self.root / "trials" / f"{number:04d}"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other processes out; the kernel lets them in again when this one ends, however it ends.

        Raises:
            ArtefactError: another process sweeps this model.
        """
        self.root.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root.with_name(self.root.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise ArtefactError(
                f"another process is sweeping {self.root}", "wait for it or stop it; other models can run beside it"
            ) from None
        try:
            yield
        finally:
            os.close(descriptor)
